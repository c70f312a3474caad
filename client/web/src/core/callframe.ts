/**
 * Frames of `/kodo/call/1`: a uvarint length and one msgpack value.
 *
 *     caller:  {op, args}  then, for an upload, bin frames
 *     callee:  {item} *    then exactly one end: {done} or {error: {code, reason, message, data}}
 */
import { concat, varint } from './bytes.ts'
import { CallError, PeerError } from './errors.ts'
import { encode } from './msgpack.ts'
import { type Bytes, type Value, fieldOf, isRow } from './value.ts'

export const CALL_PROTOCOL = '/kodo/call/1'
/** The msgpack value of one frame, without its length. */
export const MAX_FRAME_BYTES = 1 << 20
const MAX_REASON_CHARACTERS = 128

/** Write the frame of one value. @throws UsageError, CapacityError as `encode`. */
export function encodeFrame(value: unknown): Bytes {
  const body = encode(value, MAX_FRAME_BYTES)
  return concat(varint(body.length), body)
}

export type Answer = { kind: 'item'; value: Value } | { kind: 'done'; value: Value } | { kind: 'error'; error: CallError }

/** Read one value of a callee; keys that are not known are passed over. @throws PeerError: it is no answer. */
export function readAnswer(value: Value): Answer {
  if (!isRow(value)) throw new PeerError('an answer is not a map')
  const found = (['item', 'done', 'error'] as const).filter(key => Object.hasOwn(value, key))
  const [kind] = found
  if (kind === undefined || found.length !== 1) throw new PeerError('an answer is not exactly one of item, done and error')
  const content = fieldOf(value, kind)!
  return kind === 'error' ? { kind, error: readError(content) } : { kind, value: content }
}

function readError(body: Value): CallError {
  if (!isRow(body)) throw new PeerError('the error in an answer is not a map')
  const [code, reason] = [fieldOf(body, 'code'), fieldOf(body, 'reason')]
  // Absent and null are the same to callers that write all fields.
  const [message, data] = [fieldOf(body, 'message') ?? '', fieldOf(body, 'data') ?? {}]
  if (typeof code !== 'number' || !Number.isInteger(code) || code < 400 || code > 599)
    throw new PeerError('the error in an answer has no code from 400 to 599')
  if (typeof reason !== 'string' || reason.length < 1 || reason.length > MAX_REASON_CHARACTERS)
    throw new PeerError('the error in an answer has no reason')
  if (typeof message !== 'string' || !isRow(data)) throw new PeerError('the error in an answer is malformed')
  return new CallError(code, reason, message, data)
}
