import assert from 'node:assert/strict'
import { test } from 'node:test'
import { begunBatch, keepBatch } from '../../src/ui/flows/batch.ts'
import { readRows } from '../../src/ui/flows/rows.ts'
import { dayBounds } from '../../src/ui/runs/runs.ts'
import { kept } from '../../src/ui/storage.ts'

const SCHEMA = { type: 'object', properties: { name: { type: 'string' }, n: { type: 'integer' } } }
const HOUR = 3_600_000

test('a batch is known again by its rows alone, and nothing of them is kept', () => {
  const rows = readRows('name,n\nAda,9007199254740993', SCHEMA, {})
  keepBatch('node flow', SCHEMA, rows, { id: 'b', tag: 't' }, HOUR)
  assert.deepEqual(begunBatch('node flow', SCHEMA, rows, 2 * HOUR), { id: 'b', tag: 't' })
  assert.equal(begunBatch('node other', SCHEMA, rows, 2 * HOUR), undefined)
  assert.equal(begunBatch('node flow', SCHEMA, readRows('name\nBen', SCHEMA, {}), 2 * HOUR), undefined)
  assert.equal(begunBatch('node flow', SCHEMA, rows, 25 * HOUR), undefined)
  assert.equal(kept('kodo.batch', true)?.includes('Ada'), false)
})

test('of rows with secrets nothing is kept', () => {
  for (const secret of [{ writeOnly: true }, { format: 'password' }]) {
    const schema = { type: 'object', properties: { deep: { type: 'object', properties: { key: { type: 'string', ...secret } } } } }
    const rows = readRows('deep.key\nx', schema, {})
    keepBatch('node secret', schema, rows, { id: 'b', tag: 't' }, 0)
    assert.equal(begunBatch('node secret', schema, rows, 0), undefined)
  }
})

test('days are whole, as this device counts them', () => {
  const { since, until } = dayBounds('2026-11-24', '2026-11-24')
  assert.deepEqual([since, until], [new Date(2026, 10, 24).getTime(), new Date(2026, 10, 25).getTime()])
  assert.deepEqual(dayBounds('', ''), { since: undefined, until: undefined })
  assert.deepEqual(dayBounds('nonsense', ''), { since: undefined, until: undefined })
})
