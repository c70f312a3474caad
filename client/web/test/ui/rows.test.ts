import assert from 'node:assert/strict'
import { test } from 'node:test'
import { columnsOf, MAX_CHARACTERS, MAX_ROWS, readRows, refusalOf } from '../../src/ui/flows/rows.ts'

const SCHEMA = {
  type: 'object',
  properties: {
    name: { type: 'string' },
    n: { type: 'integer' },
    x: { type: 'number' },
    fast: { type: 'boolean' },
    size: { enum: ['small', 'large'], enumNames: ['Small one', 'Large one'] },
    words: { type: 'array', items: { type: 'string' } },
    numbers: { type: 'array', items: { type: 'integer' } },
    place: { $ref: '#/$defs/Place' },
    extra: { type: 'object', additionalProperties: { type: 'integer' } },
    'a.b': { type: 'string' }
  },
  required: ['name'],
  $defs: { Place: { type: 'object', properties: { city: { type: 'string' }, zip: { type: 'integer' } }, required: ['city'] } }
}
const read = (text: string, common = {}) => readRows(text, SCHEMA, common)
const inputs = (text: string, common = {}) => read(text, common).map(row => row.fault || row.inputs)

test('cells are read by the schema, and empty ones left out', () => {
  const head = 'name,n,x,fast,size,words,numbers,place.city,place.zip,extra,a.b'
  assert.deepEqual(inputs(`${head}\nAda,3,1.5,yes,large,"a, b","[1,2]",Ulm,89073,"{""k"": 1}",dotted\nBen,,,,,,,,,,`), [
    { name: 'Ada', n: 3, x: 1.5, fast: true, size: 'large', words: ['a', 'b'], numbers: [1, 2], place: { city: 'Ulm', zip: 89_073 }, extra: { k: 1 }, 'a.b': 'dotted' },
    { name: 'Ben' }
  ])
  assert.deepEqual(inputs('\ufeffname;fast;size\n Ada ;No;Small one'), [{ name: 'Ada', fast: false, size: 'small' }])
  assert.deepEqual(inputs('name\tn\nAda\t9007199254740993\n'), [{ name: 'Ada', n: 9_007_199_254_740_993n }])
})

test('JSON is an array, an object a line, or one object', () => {
  const both = [{ name: 'Ada' }, { name: 'Ben', n: 2 }]
  assert.deepEqual(inputs(JSON.stringify(both)), both)
  assert.deepEqual(inputs(both.map(each => JSON.stringify(each)).join('\n\n')), both)
  assert.deepEqual(inputs('{"name":\n"Ada"}'), [{ name: 'Ada' }])
})

test('what was filled in holds for rows that do not say otherwise', () => {
  assert.deepEqual(inputs('name,n\nAda,\nBen,2', { name: 'x', n: 1 }), [{ name: 'Ada', n: 1 }, { name: 'Ben', n: 2 }])
})

test('a row that cannot be launched says why, and the others can', () => {
  const rows = read('name,n,fast,numbers\nAda,x,,\nBen,1,perhaps,\nCleo,2\n,3,,\nDan,4,no,"1,x"\nEve,5,,')
  assert.deepEqual(rows.map(row => [row.number, row.fault]), [
    [1, 'n: This is not a whole number.'],
    [2, 'fast: This is neither yes nor no.'],
    [3, 'It has 2 cells, and the first line 4.'],
    [4, 'name: This is needed.'],
    [5, 'numbers/1: This is not a whole number.'],
    [6, '']
  ])
  assert.deepEqual(rows[0]!.own, { name: 'Ada', n: 'x' })
  assert.match(read('name,nmae\nAda,x')[0]!.fault, /no input “nmae”/)
  assert.deepEqual(read('[{"name": "Ada"}, 1, null, [2]]').map(row => row.fault !== ''), [false, true, true, true])
  assert.deepEqual(read('{"name": "Ada"}\n{oops').map(row => row.fault !== ''), [false, true])
})

test('names that objects inherit are names as others', () => {
  for (const text of ['name,__proto__\nAda,x', '[{"name": "Ada", "__proto__": {"polluted": true}}]']) assert.match(read(text)[0]!.fault, /no input “__proto__”/)
  for (const text of ['name,__proto__.polluted\nAda,x', 'name,constructor.prototype.polluted\nAda,x']) assert.notEqual(read(text)[0]!.fault, '')
  assert.equal(({} as { polluted?: unknown }).polluted, undefined)
})

test('no rows, too many, or a column without a name are refused', () => {
  assert.deepEqual(read(' \n'), [])
  for (const text of ['name', '[]', 'name,,n\nAda,1,2', `name\n${'x\n'.repeat(MAX_ROWS + 1)}`, 'x'.repeat(MAX_CHARACTERS + 1)]) assert.throws(() => read(text), SyntaxError)
  assert.equal(read(`name\n${'x\n'.repeat(MAX_ROWS)}`).length, MAX_ROWS)
})

test('columns come in the order of the rows, and a refusal names its field', () => {
  const rows = read('[{"name": "Ada"}, {"n": 1, "name": "Ben"}]')
  assert.deepEqual(columnsOf(rows, 8), ['name', 'n'])
  assert.deepEqual(columnsOf(rows, 1), ['name'])
  assert.equal(refusalOf(new Map([['/place/city', 'too short']]), 'else'), 'place/city: too short')
  assert.equal(refusalOf(new Map(), 'else'), 'else')
})
