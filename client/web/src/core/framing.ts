/**
 * Frames of `uvarint length + body`, and the messages of a libp2p stream inside its data channel (libp2p/specs, webrtc):
 * `Message { optional Flag flag = 1; optional bytes message = 2; }`, each prefixed by its length.
 */
import { concat, fields, readVarint, varint } from './bytes.ts'
import { PeerError } from './errors.ts'
import type { Bytes } from './value.ts'

/** Length prefix included: the most that every implementation takes. */
export const MAX_MESSAGE_BYTES = 16 * 1024
/** What is left for the payload beside a flag and the payload's own tag and length. */
export const MAX_PAYLOAD_BYTES = MAX_MESSAGE_BYTES - 2 - 2 - 3

export const FIN = 0
export const STOP_SENDING = 1
export const RESET = 2
export const FIN_ACK = 3
export type Flag = typeof FIN | typeof STOP_SENDING | typeof RESET | typeof FIN_ACK

/** Cuts bytes into frames, however they arrive. A frame that arrives whole is a part of what it arrived in, no copy. */
export class PrefixedFrames {
  readonly #most: number
  readonly #mostPrefix: number
  readonly #what: string
  /** The beginning of a length that is not whole. */
  #head: Bytes = new Uint8Array(0)
  #body: Bytes | undefined
  #filled = 0

  constructor(mostBytes: number, what: string) {
    this.#most = mostBytes
    this.#mostPrefix = varint(mostBytes).length
    this.#what = what
  }

  /** Bytes that are kept of a frame that is not whole; not 0 at the end means that it was cut off. */
  get buffered(): number {
    return this.#head.length + (this.#body ? this.#body.length : 0)
  }

  /** Take bytes; give the bodies that are now whole. @throws PeerError: one is over the bound; the stream is lost. */
  *feed(data: Bytes): Generator<Bytes> {
    let at = 0
    while (at < data.length) {
      if (this.#body) {
        const part = data.subarray(at, at + this.#body.length - this.#filled)
        this.#body.set(part, this.#filled)
        this.#filled += part.length
        at += part.length
        if (this.#filled < this.#body.length) return
        const whole = this.#body
        this.#body = undefined
        yield whole
        continue
      }
      const kept = this.#head.length
      const source = kept > 0 ? concat(this.#head, data.subarray(at, at + this.#mostPrefix)) : data
      const read = readVarint(source, kept > 0 ? 0 : at, this.#mostPrefix)
      if (!read) {
        this.#head = concat(this.#head, data.subarray(at))
        return
      }
      this.#head = new Uint8Array(0)
      if (read.value > this.#most) throw new PeerError(`a ${this.#what} of ${read.value} bytes was announced, the bound is ${this.#most}`)
      at = kept > 0 ? at + read.end - kept : read.end
      if (at + read.value <= data.length) {
        yield data.subarray(at, at + read.value)
        at += read.value
      } else {
        this.#body = new Uint8Array(read.value)
        this.#filled = 0
      }
    }
  }
}

/** Write one message with its length; `payload` has at most `MAX_PAYLOAD_BYTES`. */
export function encodeMessage(flag: Flag | undefined, payload: Uint8Array = new Uint8Array(0)): Bytes {
  if (payload.length > MAX_PAYLOAD_BYTES) throw new RangeError('a payload is over the limit of a message')
  const flagged = flag === undefined ? [] : [8, flag]
  const tagged = payload.length > 0 ? [18, ...varint(payload.length)] : []
  const length = flagged.length + tagged.length + payload.length
  return concat(varint(length), Uint8Array.from([...flagged, ...tagged]), payload)
}

export interface StreamMessage {
  flag: Flag | undefined
  payload: Uint8Array
}

/** Read a message's body. A later version's flag is passed over. @throws PeerError: it is malformed. */
export function decodeMessage(body: Uint8Array): StreamMessage {
  let flag: Flag | undefined
  let payload = new Uint8Array(0) as Uint8Array
  for (const [number, value] of fields(body)) {
    if (number === 1 && typeof value === 'number') flag = value <= FIN_ACK ? (value as Flag) : undefined
    else if (number === 2 && typeof value !== 'number') payload = value
    else if (number === 1 || number === 2) throw new PeerError('a field of a stream message has the wrong type')
  }
  return { flag, payload }
}
