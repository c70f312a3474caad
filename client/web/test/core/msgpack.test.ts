import assert from 'node:assert/strict'
import { test } from 'node:test'
import { concat, fromHex, hex, readVarint, varint } from '../../src/core/bytes.ts'
import { CapacityError, PeerError, UsageError } from '../../src/core/errors.ts'
import { MAX_DEPTH, decode, encode } from '../../src/core/msgpack.ts'
import type { Bytes, Value } from '../../src/core/value.ts'
import { revive, vectors } from '../vectors.ts'

const { valid, refused } = vectors<{ valid: { value: unknown; bytes: string }[]; refused: { why: string; bytes: string }[] }>('callframe')

/** The msgpack of a frame, without the frame's length. */
function body(frame: string): Bytes {
  const bytes = fromHex(frame)
  const { value, end } = readVarint(bytes)!
  assert.equal(value, bytes.length - end)
  return bytes.slice(end)
}

test('values are read and written as the vectors say', () => {
  for (const { value, bytes } of valid) {
    assert.equal(hex(encode(revive(value))), hex(body(bytes)))
    assert.deepEqual(decode(body(bytes)), revive(value))
  }
})

for (const { why, bytes } of refused)
  test(`a frame is refused: ${why}`, () => {
    assert.throws(() => decode(body(bytes)), PeerError)
  })

test('an integer beyond 2**53 is a bigint, digit for digit, and only that is', () => {
  for (const text of ['9007199254740992', '9007199254740993', '18446744073709551615', '-9007199254740993', '-9223372036854775808']) {
    const read = decode(encode(BigInt(text)))
    assert.equal(read, BigInt(text))
  }
  for (const number of [2 ** 53 - 1, -(2 ** 53) + 1, 2 ** 32, -(2 ** 31) - 1]) {
    assert.equal(decode(encode(number)), number)
    assert.equal(decode(encode(BigInt(number))), number)
  }
  assert.throws(() => encode(2n ** 64n), UsageError)
  assert.throws(() => encode(-(2n ** 63n) - 1n), UsageError)
})

test('numbers that are whole are written as integers, others as floats', () => {
  assert.equal(hex(encode(2 ** 53)), 'cf0020000000000000')
  assert.equal(hex(encode(-(2 ** 53))), 'd3ffe0000000000000')
  assert.equal(encode(1e300)[0], 0xcb)
  assert.ok(Object.is(decode(encode(-0)), -0))
  assert.throws(() => encode(NaN), UsageError)
  assert.throws(() => encode(Infinity), UsageError)
})

test('a key `__proto__` is a key like any other', () => {
  const read = decode(fromHex('81a95f5f70726f746f5f5f81a161c3')) as Record<string, Value>
  assert.deepEqual(Object.keys(read), ['__proto__'])
  assert.equal(Object.getPrototypeOf(read), Object.prototype)
  assert.equal(read['a'], undefined)
  assert.equal(hex(encode(read)), '81a95f5f70726f746f5f5f81a161c3')
})

test('bytes are a copy, so that a small one does not keep a large frame', () => {
  const frame = encode({ item: new Uint8Array(3) })
  const { item } = decode(frame) as { item: Bytes }
  assert.equal(item.buffer.byteLength, 3)
  const part = decode(frame, { parts: true }) as { item: Bytes }
  assert.equal(part.item.buffer, frame.buffer)
})

test('nesting, size and count are bounded', () => {
  const nested = (depth: number): Value => (depth === 0 ? null : [nested(depth - 1)])
  assert.deepEqual(decode(encode(nested(MAX_DEPTH))), nested(MAX_DEPTH))
  assert.throws(() => encode(nested(MAX_DEPTH + 1)), UsageError)
  assert.throws(() => encode(new Uint8Array(100), 50), CapacityError)
  assert.throws(() => decode(encode(new Array<number>(100).fill(1)), { maxValues: 100 }), PeerError)
  assert.equal((decode(encode(new Array<number>(100).fill(1)), { maxValues: 101 }) as Value[]).length, 100)
})

test('a value that is cut off anywhere is refused, whatever it announces', () => {
  const whole = encode({ text: 'ä'.repeat(40), list: [1, 300, 70000, -1, -300, 1.5, 2n ** 60n], bytes: new Uint8Array(300), map: { a: null } })
  for (let length = 0; length < whole.length; length++) assert.throws(() => decode(whole.slice(0, length)), PeerError)
  for (const head of ['c6ffffffff', 'dbffffffff', 'ddffffffff', 'dfffffffff']) assert.throws(() => decode(fromHex(head)), PeerError)
})

test('what has no place on the wire is refused', () => {
  for (const value of [new Date(), new Map(), () => 0, Symbol('x'), '\ud800', { '\udfff': 1 }]) assert.throws(() => encode(value), UsageError)
  assert.equal(hex(encode({ a: undefined, b: undefined })), '80')
})

test('lists and maps longer than one byte tells have their lengths in front', () => {
  for (const count of [15, 16, 65535, 65536]) {
    const list = new Array<number>(count).fill(7)
    assert.deepEqual(decode(encode(list, 1 << 24)), list)
  }
  const map = Object.fromEntries(Array.from({ length: 70000 }, (_, i) => [`k${i}`, i]))
  assert.deepEqual(decode(encode(map, 1 << 24)), map)
  assert.equal(hex(concat(varint(300))), 'ac02')
})
