import assert from 'node:assert/strict'
import { test } from 'node:test'
import { completed, pasted, withoutSecrets } from '../../src/ui/flows/prefill.ts'

const MASK = '••••••••'

test('a form begins with the inputs of a run but for those that hold secrets', () => {
  const inputs = { n: 1, token: MASK, keys: ['a', MASK], deep: { a: [{ b: MASK }] }, place: { city: 'Ulm' }, dots: '•••' }
  assert.deepEqual(withoutSecrets(inputs), { n: 1, place: { city: 'Ulm' }, dots: '•••' })
  let nested: Record<string, unknown> = {}
  for (let depth = 0; depth < 1000; depth++) nested = { a: nested }
  assert.deepEqual(withoutSecrets({ nested, n: 1 } as never), { n: 1 })
})

test('what is pasted is one JSON object', () => {
  assert.deepEqual(pasted(' {"n": 1, "token": "••••••••"} '), { n: 1 })
  for (const text of ['', '[1]', '1', 'null', '"text"', '{n: 1}', '{"n": 1} x']) assert.throws(() => pasted(text), SyntaxError, text)
})

test('what was filled in stands beside what the form begins with', () => {
  const schema = { type: 'object', properties: { n: { type: 'integer', default: 3 }, on: { type: 'boolean' }, name: { type: 'string' } }, required: ['on', 'name'] }
  assert.deepEqual(completed(schema, { name: 'Ada' }), { n: 3, on: false, name: 'Ada' })
  assert.deepEqual(completed(schema, { n: 4 }), { n: 4, on: false })
  assert.deepEqual(completed({}, { x: 1 }), { x: 1 })
})
