import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { ago, brief, bytes, dotted, duration, json, oneLine, pairs } from '../../src/ui/format.ts'
import { fits, glob, type FlowRow } from '../../src/ui/flows/catalog.ts'
import { readCsv } from '../../src/ui/show/csv.ts'
import { shapeOf } from '../../src/ui/show/show.tsx'
import { statsOf, type RunRow } from '../../src/ui/runs/runs.ts'

test('sizes and times are read at a glance', () => {
  assert.deepEqual([0, 1023, 1536, 5 << 20].map(bytes), ['0 B', '1023 B', '1.5 KiB', '5.0 MiB'])
  assert.deepEqual([0.0254, 4.24, 75, 3700, 90_000].map(duration), ['25 ms', '4.2 s', '1 min 15 s', '1 h 1 min', '1 d 1 h'])
  assert.equal(ago(1000, 1000), 'now')
  assert.equal(ago(0, 120_000), '2 minutes ago')
  assert.equal(ago(7 * 86_400_000, 0), 'in 7 days')
})

test('a dot between facts stays on the line of what is before it, wherever there is one', () => {
  assert.equal(dotted('1 B', '', undefined, false, 'text/plain'), '1 B\u00a0· text/plain')
  const folder = join(fileURLToPath(import.meta.url), '..', '..', '..', '..', 'src', 'ui')
  const sources = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter(name => /\.tsx?$/.test(name))
  const loose = sources.filter(name => readFileSync(join(folder, name), 'utf8').replaceAll(/document\.title = .*/g, '').includes(' · '))
  assert.deepEqual([sources.length > 40, loose], [true, []])
})

test('values are shown digit for digit, on one line, as names and values', () => {
  assert.equal(pairs({ i: 3 }), 'i 3')
  assert.equal(brief(2n ** 64n), '18446744073709551616')
  assert.equal(brief([1, 'a', null, { b: true }]), '[1, a, null, {b true}]')
  assert.equal(json({ a: 2n ** 60n, b: [] }, 0), '{"a":1152921504606846976,"b":[]}')
  assert.ok(brief('x'.repeat(1e6)).length < 300)
  assert.ok(pairs(Object.fromEntries(Array.from({ length: 1e4 }, (_, index) => [String(index), index]))).length < 600)
})

test('nothing turns or hides what stands around it', () => {
  assert.equal(oneLine('a\nb\u202ec\u0000d\u2066e', 100), 'a bc de')
})

test('a pattern fits as in a shell, in linear time', () => {
  assert.equal(glob('*mar?et*')('a market b'), true)
  assert.equal(glob('mar?et')('a market'), false)
  assert.equal(glob('*')(''), true)
  assert.equal(glob('*a'.repeat(50) + 'b')('a'.repeat(5000)), false)
})

test('a search finds what people see', () => {
  const row: FlowRow = { peerId: 'p', node: 'n.example', path: 'a.b', name: 'Trend', description: 'Looks', author: 'ana', organization: 'X', release: '1', published: 1, tags: ['market'], broken: false, source: 'near' }
  for (const wanted of ['trend', 'MARK', 'n.ex', 'a.b', '', '*end']) assert.equal(fits(row, wanted), true, wanted)
  assert.equal(fits(row, 'nothing'), false)
})

test('separated values are read with quotes, line ends and other separators', () => {
  assert.deepEqual(readCsv('a,b\r\n"1,""2",3\n', 10), [['a', 'b'], ['1,"2', '3']])
  assert.deepEqual(readCsv('a;b\n1;2', 10), [['a', 'b'], ['1', '2']])
  assert.deepEqual(readCsv('a\n1\n2\n3\n', 2), [['a'], ['1']])
  assert.deepEqual(readCsv('"never closed', 10), [['never closed']])
})

test('what is shown in place is what is known to be harmless there', () => {
  assert.equal(shapeOf('text/markdown; charset=utf-8', 'x'), 'markdown')
  assert.equal(shapeOf('image/svg+xml', 'x'), 'image')
  assert.equal(shapeOf('text/html', 'x'), 'html')
  assert.equal(shapeOf('application/octet-stream', 'x.bin'), undefined)
  assert.equal(shapeOf('application/x-shockwave-flash', 'x'), undefined)
})

test('runs add up by flow', () => {
  const DAY = 86_400_000
  const run = (name: string, state: RunRow['state'], created: number, runtime?: number, error = ''): RunRow => ({ key: '', peerId: '', node: '', fid: '', path: '', name, state, created, modified: created, runtime, error, own: true, progress: undefined, tags: [], position: undefined, waits: false, acknowledged: false })
  const now = 100 * DAY
  const [first, second] = statsOf([run('a', 'done', now, 1), run('a', 'done', now - DAY, 3), run('a', 'error', now, undefined, 'ValueError'), run('b', 'done', now - 50 * DAY, 2)], now)
  assert.deepEqual([first?.name, first?.runs, first?.errors, first?.median, first?.types], ['a', 3, 1, 3, [['ValueError', 1]]])
  assert.deepEqual(first?.days.slice(-2), [{ runs: 1, errors: 0 }, { runs: 2, errors: 1 }])
  assert.equal(second?.days.every(day => day.runs === 0), true)
})
