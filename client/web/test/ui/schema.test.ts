import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Row } from '../../src/core/value.ts'
import { beginOf, faultsOf, fieldFor, put, readNumber, Unread, valueOf } from '../../src/ui/form/schema.ts'

const kind = (schema: Row, root: Row = schema) => fieldFor(schema, root, 'x').kind

test('each kind of schema has its field', () => {
  assert.equal(kind({ type: 'string' }), 'text')
  assert.equal(kind({ type: 'string', format: 'file' }), 'file')
  assert.equal(kind({ type: 'integer' }), 'integer')
  assert.equal(kind({ type: 'boolean' }), 'boolean')
  assert.equal(kind({ enum: ['a', 'b'] }), 'choice')
  assert.equal(kind({ const: 1 }), 'constant')
  assert.equal(kind({ type: 'array', items: { type: 'string' } }), 'list')
  assert.equal(kind({ type: 'array', items: { enum: ['a'] } }), 'choices')
  assert.equal(kind({ type: 'object', properties: { a: {} } }), 'group')
  assert.equal(kind({ type: 'object' }), 'map')
  assert.equal(kind({ anyOf: [{ type: 'string' }, { type: 'integer' }] }), 'oneOf')
  assert.equal(kind({}), 'json')
})

test('what may be null is optional, and keeps its kind', () => {
  const field = fieldFor({ anyOf: [{ type: 'integer' }, { type: 'null' }], default: null, title: 'Limit' }, {}, 'limit')
  assert.deepEqual([field.kind, field.nullable, field.title, field.initial], ['integer', true, 'Limit', null])
  assert.equal(fieldFor({ type: ['string', 'null'] }, {}, 'x').nullable, true)
})

test('references are followed within the schema, and a circle ends', () => {
  const root: Row = { $defs: { 'a/b': { type: 'integer', title: 'Inner' }, loop: { $ref: '#/$defs/loop' } } }
  assert.equal(fieldFor({ $ref: '#/$defs/a~1b', title: 'Outer' }, root, 'x').title, 'Outer')
  assert.equal(kind({ $ref: '#/$defs/a~1b' }, root), 'integer')
  assert.equal(kind({ $ref: '#/$defs/loop' }, root), 'json')
  assert.equal(kind({ $ref: 'https://example.com/schema' }, root), 'json')
  assert.equal(kind({ $ref: '#/__proto__/x' }, root), 'json')
})

test('a schema that contains itself begins with something finite', () => {
  const root: Row = { $ref: '#/$defs/node', $defs: { node: { type: 'object', properties: { next: { $ref: '#/$defs/node' }, name: { type: 'string', default: 'n' } }, required: ['next'] } } }
  assert.doesNotThrow(() => JSON.stringify(beginOf(root, root, true)))
})

test('defaults stand in the form, and what is empty is not sent', () => {
  const schema: Row = {
    type: 'object',
    properties: { a: { type: 'integer', default: 3 }, b: { type: 'string' }, c: { type: 'boolean' } },
    required: ['c']
  }
  assert.deepEqual(beginOf(schema, schema, true), { a: 3, c: false })
  assert.deepEqual(valueOf({ a: 3, b: undefined, c: false }), { a: 3, c: false })
})

test('needed fields without a value and texts that are no numbers are named by JSON Pointer', () => {
  const schema: Row = {
    type: 'object',
    required: ['a', 'p'],
    properties: { a: { type: 'string' }, 'n/x': { type: 'integer' }, p: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] } }
  }
  const faults = faultsOf(schema, schema, { 'n/x': new Unread('1x', 'no number'), p: {} }, 'needed')
  assert.deepEqual([...faults].sort(), [['/a', 'needed'], ['/n~1x', 'no number'], ['/p/city', 'needed']])
})

test('integers of any length stay exact', () => {
  assert.equal(readNumber('9007199254740993', true), 9007199254740993n)
  assert.equal(readNumber(' -12 ', true), -12)
  assert.equal(readNumber('+7', false), 7)
  assert.equal(readNumber('1.5', true), undefined)
  assert.equal(readNumber('1.5e3', false), 1500)
  for (const text of ['', '0x10', '1e999', 'NaN', '1_000', '--1']) assert.equal(readNumber(text, false), undefined, text)
})

test('no name is more than a name', () => {
  const row: Row = {}
  put(row, '__proto__', { polluted: true })
  assert.equal(Object.hasOwn(row, '__proto__'), true)
  assert.equal((({}) as Row)['polluted'], undefined)
  assert.equal(fieldFor({ type: 'object', properties: JSON.parse('{"__proto__": {"type": "string"}}') as Row }, {}, 'x').members[0]?.name, '__proto__')
})

test('names of values are shown where there is one for each', () => {
  const labels = (schema: Row) => fieldFor(schema, schema, 'x').labels
  assert.deepEqual(labels({ enum: ['t', null, 'b'], enumNames: ['Train', 'None', 'Bicycle'] }), ['Train', 'Bicycle'])
  assert.deepEqual(labels({ enum: ['t', 'b'], enumNames: ['Train'] }), [])
  assert.deepEqual(labels({ enum: ['t'], enumNames: 'Train' }), [])
  assert.deepEqual(labels({ type: 'array', items: { enum: ['t'], enumNames: ['Train'] } }), ['Train'])
  const choice = fieldFor({ oneOf: [{ const: 1, title: 'One' }, { const: 2 }, { type: 'null' }] }, {}, 'x')
  assert.deepEqual([choice.kind, choice.values, choice.labels, choice.nullable], ['choice', [1, 2], ['One', '2'], true])
})

test('fields have the order that the author gave them', () => {
  const properties: Row = { a: {}, b: { propertyOrder: 2 }, c: { propertyOrder: 1 }, d: { propertyOrder: 'x' } }
  assert.deepEqual(fieldFor({ type: 'object', properties }, {}, 'x').members.map(member => member.name), ['c', 'b', 'a', 'd'])
})

test('fields of a group stand together where its first one does', () => {
  const properties: Row = { name: {}, city: { group: 'Hotel' }, train: { 'ui:group': 'Way' }, stars: { group: ' Hotel ', propertyOrder: 1 }, note: { group: 7 }, seat: { group: 'Way' } }
  const members = fieldFor({ type: 'object', properties }, {}, 'x').members.map(member => [member.name, member.group])
  assert.deepEqual(members, [['stars', 'Hotel'], ['city', 'Hotel'], ['name', ''], ['train', 'Way'], ['seat', 'Way'], ['note', '']])
})

test('examples, help and texts of several lines are the words that forms use', () => {
  const field = fieldFor({ type: 'string', 'ui:placeholder': 'Ulm', 'ui:help': 'A town.', 'ui:widget': 'textarea' }, {}, 'x')
  assert.deepEqual([field.placeholder, field.help, field.long], ['Ulm', 'A town.', true])
  assert.equal(fieldFor({ type: 'string', format: 'textarea' }, {}, 'x').long, true)
  assert.deepEqual([fieldFor({ placeholder: 7, help: {} }, {}, 'x').placeholder, fieldFor({ help: {} }, {}, 'x').help], ['', ''])
})
