import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PeerError } from '../../src/core/errors.ts'
import { checkOutputName, fileName, storedNames } from '../../src/core/names.ts'
import { vectors } from '../vectors.ts'

interface Case {
  names: string[]
  stored: string[]
  lossy?: boolean
}
const { renamed, refused } = vectors<{ renamed: Case[]; refused: string[] }>('portable')

test('names are stored as the vectors say', () => {
  for (const { names, stored } of renamed) assert.deepEqual([...storedNames(names.map(checkOutputName))], names.map((name, index) => [name, stored[index]]))
})

test('a name can be told from what is stored, but for one that is too long', () => {
  for (const { names, stored, lossy } of renamed) if (!lossy) assert.deepEqual(stored.map(decode), names)
})

test('what is no name of an output is refused', () => {
  for (const name of refused) assert.throws(() => checkOutputName(name), PeerError, JSON.stringify(name))
  assert.throws(() => checkOutputName('a\ud800'), PeerError)
})

test('a file by itself is called by its last part, and keeps a dot at the beginning', () => {
  assert.equal(fileName('charts/10:30.svg'), '10%3A30.svg')
  assert.equal(fileName('home/.env'), '%2Eenv')
})

/** Turn escapes back; a `%` by itself stays. */
function decode(stored: string): string {
  return stored.replace(/(?:%[0-9A-F]{2})+/g, escapes => decodeURIComponent(escapes))
}
