import assert from 'node:assert/strict'
import { test } from 'node:test'
import { UsageError } from '../../src/core/errors.ts'
import { chosen, type Entry, gathered, MAX_FILES } from '../../src/ui/form/gather.ts'

const file = (name: string): Entry => ({ name, isFile: true, isDirectory: false, file: taken => taken(new File(['x'], name)) })

/** A folder that gives its entries a few at a time, as browsers do. */
const folder = (name: string, entries: Entry[], step = 2): Entry => ({
  name,
  isFile: false,
  isDirectory: true,
  createReader: () => {
    let at = 0
    return { readEntries: taken => taken(entries.slice(at, (at += step))) }
  }
})

const names = async (found: ReturnType<typeof gathered>) => (await found).map(each => each.name)

test('files of folders have the names of their folders, in order, without hidden ones', async () => {
  const trip = folder('trip', [file('b'), folder('2024', [file('c'), file('a'), file('.x')]), folder('.git', [file('config')]), file('a')])
  assert.deepEqual(await names(gathered([trip, file('z')], [new File([], 'pasted.png')])), ['pasted.png', 'trip/2024/a', 'trip/2024/c', 'trip/a', 'trip/b', 'z'])
})

test('what is named by itself is taken, hidden or not', async () => {
  assert.deepEqual(await names(gathered([file('.env')])), ['.env'])
  assert.deepEqual(chosen([new File([], '.env')]).map(each => each.name), ['.env'])
})

test('a folder without files, and one with too many, is refused', async () => {
  await assert.rejects(gathered([folder('empty', [folder('inner', [])])]), UsageError)
  const many = Array.from({ length: MAX_FILES + 1 }, (_, index) => file(String(index)))
  await assert.rejects(gathered([folder('many', many, 100)]), UsageError)
  assert.equal((await gathered([folder('full', many.slice(1), 100)])).length, MAX_FILES)
})

test('a folder that cannot be read is told', async () => {
  const broken: Entry = { name: 'x', isFile: true, isDirectory: false, file: (_, failed) => failed(new DOMException('gone', 'NotFoundError')) }
  await assert.rejects(gathered([broken]), DOMException)
})
