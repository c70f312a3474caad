import assert from 'node:assert/strict'
import { test } from 'node:test'
import { drawn } from '../../src/ui/parts/qr.tsx'

test('a code has its finders, four light modules around them, and no text that is too long', () => {
  const code = drawn('kodo:abc')
  assert.ok(code)
  assert.equal(code.size, 21 + 2 * 4)
  const dark = new Set([...code.path.matchAll(/M(\d+) (\d+)h1v1h-1z/g)].map(([, x, y]) => `${x} ${y}`))
  const at = (x: number, y: number) => dark.has(`${x} ${y}`)
  for (const [left, top] of [[4, 4], [18, 4], [4, 18]] as const)
    for (let y = 0; y < 7; y++)
      for (let x = 0; x < 7; x++) {
        const ring = Math.max(Math.abs(x - 3), Math.abs(y - 3))
        assert.equal(at(left + x, top + y), ring !== 2, `${left + x} ${top + y}`)
      }
  assert.equal([...dark].some(each => each.split(' ').some(n => Number(n) < 4 || Number(n) > 24)), false)
  assert.notEqual(drawn('x'.repeat(2953)), undefined)
  assert.equal(drawn('x'.repeat(2954)), undefined)
})
