import assert from 'node:assert/strict'
import { test } from 'node:test'
import { base58, base64url, bytesField, concat, fields, fromBase58, fromBase64url, fromHex, hex, readUtf8, readVarint, varint } from '../../src/core/bytes.ts'
import { PeerError } from '../../src/core/errors.ts'
import { keyOfPeerIdBytes, keyProtobuf, parsePeerId, peerIdBytes, peerIdOf } from '../../src/core/peerid.ts'
import { vectors } from '../vectors.ts'

test('varints are read and written as the vectors say', () => {
  for (const { value, bytes } of vectors<{ valid: { value: number; bytes: string }[] }>('varint').valid) {
    assert.equal(hex(varint(value)), bytes)
    assert.deepEqual(readVarint(fromHex(bytes)), { value, end: bytes.length / 2 })
    assert.equal(readVarint(fromHex(bytes).subarray(0, -1)), undefined)
  }
})

test('a varint that is longer than it needs to be, or than allowed, is refused', () => {
  assert.throws(() => readVarint(fromHex('8000')), PeerError)
  assert.throws(() => readVarint(fromHex('ffffffffffffffff7f')), PeerError)
  assert.throws(() => readVarint(fromHex('808001'), 0, 2), PeerError)
})

test('base58 and base64url are read and written as the vectors say', () => {
  const { valid } = vectors<{ valid: { bytes: string; base58: string; base64url: string }[] }>('multibase')
  for (const vector of valid) {
    const bytes = fromHex(vector.bytes)
    assert.equal(base58(bytes), vector.base58)
    assert.equal(hex(fromBase58(vector.base58)), vector.bytes)
    assert.equal(`u${base64url(bytes)}`, vector.base64url)
    assert.equal(hex(fromBase64url(vector.base64url.slice(1))), vector.bytes)
  }
})

test('base64url with padding, other characters or bits left over is refused', () => {
  for (const text of ['YQ==', 'a+b/', 'A', 'YR', 'YQ\n']) assert.throws(() => fromBase64url(text), PeerError)
})

test('peer ids are made and read as the vectors say', () => {
  const { valid } = vectors<{ valid: Record<string, string>[] }>('identity')
  for (const { public_key, protobuf, multihash, peer_id } of valid) {
    const key = fromHex(public_key!)
    assert.equal(peerIdOf(key), peer_id)
    assert.equal(hex(peerIdBytes(key)), multihash)
    assert.equal(hex(keyProtobuf(key)), protobuf)
    assert.equal(hex(parsePeerId(peer_id!)), multihash)
    assert.equal(hex(keyOfPeerIdBytes(fromHex(multihash!))), public_key)
  }
})

test('a text that is no peer id is refused', () => {
  for (const text of ['', '12D3KooW', 'QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N', '0'.repeat(52), '1'.repeat(1000)])
    assert.throws(() => parsePeerId(text), PeerError)
})

test('protobuf fields are given in order, and what is cut off is refused', () => {
  const message = concat(Uint8Array.of(8, 3), bytesField(2, Uint8Array.of(1, 2)), Uint8Array.of(29, 1, 2, 3, 4))
  assert.deepEqual([...fields(message)], [[1, 3], [2, Uint8Array.of(1, 2)]])
  for (let length = 1; length < message.length; length++) {
    if (length === 2 || length === 6) continue
    assert.throws(() => [...fields(message.subarray(0, length))], PeerError)
  }
  assert.throws(() => [...fields(Uint8Array.of(0))], PeerError)
  assert.throws(() => [...fields(Uint8Array.of(11, 0))], PeerError)
  assert.throws(() => [...fields(fromHex('12ffffffffffffffffff01'))], PeerError)
})

test('texts are UTF-8 to the letter, a byte order mark too', () => {
  assert.equal(readUtf8(fromHex('efbbbf61')), '\ufeffa')
  assert.throws(() => readUtf8(fromHex('ff')), PeerError)
})
