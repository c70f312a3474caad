import assert from 'node:assert/strict'
import { test } from 'node:test'
import { concat, fromHex, hex, utf8 } from '../../src/core/bytes.ts'
import { encodeFrame, readAnswer } from '../../src/core/callframe.ts'
import { makeProof } from '../../src/core/enrol.ts'
import { CapacityError, PeerError, UsageError } from '../../src/core/errors.ts'
import { FIN, FIN_ACK, RESET, STOP_SENDING } from '../../src/core/framing.ts'
import { HalfClose, READ_TABLE, type StreamStep, WRITE_TABLE } from '../../src/core/halfclose.ts'
import { Dialing, encodeToken } from '../../src/core/negotiate.ts'
import type { Bytes, Value } from '../../src/core/value.ts'
import { crc32 } from '../../src/files/zip.ts'
import { vectors } from '../vectors.ts'

const after = (...steps: StreamStep[]): HalfClose => {
  const ways = new HalfClose()
  for (const step of steps) ways.on(step)
  return ways
}

test('a way out has ended only when FIN was acknowledged, in whatever order both ways end', () => {
  const orders: StreamStep[][] = [
    ['localCloseWrite', 'remoteFinAck', 'remoteFin'],
    ['localCloseWrite', 'remoteFin', 'remoteFinAck'],
    ['remoteFin', 'localCloseWrite', 'remoteFinAck']
  ]
  for (const order of orders) {
    assert.ok(!after(...order.slice(0, 2)).done)
    assert.ok(after(...order).done)
  }
})

test('each step is answered by its flag, and nothing is said of a stream that was given up', () => {
  assert.equal(new HalfClose().on('localCloseWrite'), FIN)
  assert.equal(new HalfClose().on('localCloseRead'), STOP_SENDING)
  assert.equal(new HalfClose().on('localReset'), RESET)
  assert.equal(new HalfClose().on('remoteFin'), FIN_ACK)
  assert.equal(after('localReset').on('remoteFin'), undefined)
  assert.equal(after('remoteReset').on('localReset'), undefined)
})

test('what is in no table is refused and changes nothing', () => {
  const ways = after('remoteFin')
  assert.throws(() => ways.on('remoteData'), PeerError)
  assert.throws(() => ways.on('remoteFin'), PeerError)
  assert.throws(() => ways.on('remoteFinAck'), PeerError)
  assert.equal(ways.read, 'closed')
  assert.throws(() => after('localCloseWrite').on('localCloseWrite'), UsageError)
})

test('a channel that closes without a FIN is a broken way', () => {
  assert.equal(after('channelClosed').read, 'reset')
  assert.equal(after('remoteFin', 'channelClosed').read, 'closed')
  assert.equal(after('localCloseWrite', 'channelClosed').write, 'closed')
})

test('the tables name no state that is none', () => {
  for (const row of Object.values(WRITE_TABLE)) for (const next of Object.values(row)) assert.ok(next in WRITE_TABLE)
  for (const row of Object.values(READ_TABLE)) for (const next of Object.values(row)) assert.ok(next in READ_TABLE)
})

const negotiation = vectors<{ tokens: { text: string; bytes: string }[] }>('negotiate')

test('tokens are written as the vectors say, and a protocol is agreed however the answer is cut', () => {
  for (const { text, bytes } of negotiation.tokens) assert.equal(hex(encodeToken(text)), bytes)
  const answer = concat(encodeToken('/multistream/1.0.0'), encodeToken('/kodo/call/1'), utf8('payload'))
  for (const step of [1, 2, 5, 19, answer.length]) {
    const dialing = new Dialing('/kodo/call/1')
    assert.equal(hex(dialing.hello()), hex(answer.slice(0, -7)))
    let rest: Bytes = new Uint8Array(0)
    for (let at = 0; at < answer.length; at += step) rest = concat(rest, dialing.feed(answer.slice(at, at + step)))
    assert.ok(dialing.agreed)
    assert.equal(hex(rest), hex(utf8('payload')))
  }
})

test('a protocol that is refused, or another answer, is an error', () => {
  const answers = [
    concat(encodeToken('/multistream/1.0.0'), encodeToken('na')),
    encodeToken('/multistream/2.0.0'),
    Uint8Array.of(0),
    fromHex('ff7f'),
    Uint8Array.of(3, 0xff, 0xff, 10)
  ]
  for (const answer of answers) assert.throws(() => new Dialing('/kodo/call/1').feed(answer), PeerError)
})

test('an answer is exactly one of item, done and error', () => {
  assert.deepEqual(readAnswer({ item: 1, later: 2 }), { kind: 'item', value: 1 })
  assert.deepEqual(readAnswer({ done: null }), { kind: 'done', value: null })
  const refused = readAnswer({ error: { code: 404, reason: 'no-such-run', message: null, data: null } })
  assert.ok(refused.kind === 'error' && refused.error.code === 404 && refused.error.reason === 'no-such-run')
  const wrong: Value[] = [
    1, [], {}, { item: 1, done: 2 }, { error: 1 }, { error: { code: 200, reason: 'x' } }, { error: { code: 404.5, reason: 'x' } },
    { error: { code: 404, reason: '' } }, { error: { code: 404, reason: 'x', message: 1 } }, { error: { code: 404, reason: 'x', data: [] } }
  ]
  for (const value of wrong) assert.throws(() => readAnswer(value), PeerError)
})

test('a call that is too large is refused where it is made', () => {
  assert.equal(hex(encodeFrame({ op: 'node.state', args: {} })), '1582a26f70aa6e6f64652e7374617465a46172677380')
  assert.throws(() => encodeFrame(new Uint8Array(1 << 20)), CapacityError)
})

const enrolment = vectors<{ valid: Record<'code' | 'node' | 'device' | 'proof', string>[]; refused: string[] }>('enrol')

test('what proves a code is as the vectors say, and what is none is refused', () => {
  for (const { code, node, device, proof } of enrolment.valid) assert.equal(hex(makeProof(code, node, device)), proof)
  for (const code of enrolment.refused) assert.throws(() => makeProof(code, 'n', 'd'), UsageError)
})

test('CRC-32 is that of zip files', () => {
  assert.equal(crc32(0, utf8('123456789')), 0xcbf43926)
  assert.equal(crc32(crc32(0, utf8('1234')), utf8('56789')), 0xcbf43926)
})
