import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import { concat, hex, varint } from '../../src/core/bytes.ts'
import { PeerError } from '../../src/core/errors.ts'
import { type Flag, MAX_MESSAGE_BYTES, MAX_PAYLOAD_BYTES, PrefixedFrames, decodeMessage, encodeMessage } from '../../src/core/framing.ts'
import type { Bytes } from '../../src/core/value.ts'
import { vectors } from '../vectors.ts'

interface Vector {
  flag: string | null
  payload_length: number
  bytes: string | null
  sha256: string
}
const { valid } = vectors<{ valid: Vector[] }>('framing')
const FLAGS: Record<string, Flag> = { FIN: 0, STOP_SENDING: 1, RESET: 2, FIN_ACK: 3 }
const payloadOf = (length: number): Bytes => Uint8Array.from({ length }, (_, i) => i % 256)
const messages = () => new PrefixedFrames(MAX_MESSAGE_BYTES - 2, 'stream message')

test('messages are written and read as the vectors say', () => {
  for (const { flag, payload_length, bytes, sha256 } of valid) {
    const wanted = flag === null ? undefined : FLAGS[flag]
    const payload = payloadOf(payload_length)
    const written = encodeMessage(wanted, payload)
    assert.equal(createHash('sha256').update(written).digest('hex'), sha256)
    if (bytes !== null) assert.equal(hex(written), bytes)
    const [body] = messages().feed(written)
    assert.deepEqual(decodeMessage(body!), { flag: wanted, payload })
  }
})

test('frames are the same however their bytes are cut', () => {
  const frames = [0, 1, 127, 128, 300, 16000].map(payloadOf)
  const whole = concat(...frames.flatMap(frame => [varint(frame.length), frame]))
  for (const step of [1, 2, 3, 7, 129, 16384, whole.length]) {
    const reader = messages()
    const read: string[] = []
    for (let at = 0; at < whole.length; at += step) for (const body of reader.feed(whole.slice(at, at + step))) read.push(hex(body))
    assert.deepEqual(read, frames.map(hex), `cut in ${step}`)
    assert.equal(reader.buffered, 0)
  }
})

test('a frame over the bound is refused before it is kept', () => {
  const reader = new PrefixedFrames(100, 'frame')
  assert.throws(() => [...reader.feed(varint(101))], PeerError)
  assert.throws(() => [...new PrefixedFrames(100, 'frame').feed(Uint8Array.of(255, 255))], PeerError)
  assert.throws(() => encodeMessage(undefined, new Uint8Array(MAX_PAYLOAD_BYTES + 1)), RangeError)
})

test('a message that is malformed is refused, and a later flag passed over', () => {
  assert.deepEqual(decodeMessage(Uint8Array.of(8, 9)), { flag: undefined, payload: new Uint8Array(0) })
  for (const body of [[10, 1, 0], [16, 1], [18, 5, 0], [8], [0]]) assert.throws(() => decodeMessage(Uint8Array.from(body)), PeerError)
})
