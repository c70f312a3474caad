/** Small codecs: unsigned varints, the protobuf wire format as far as libp2p's messages need it, base58, base64url, hex. */
import { PeerError } from './errors.ts'
import type { Bytes } from './value.ts'

const encoder = new TextEncoder()
// A byte order mark is a character like any other here.
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

export const utf8 = (text: string): Bytes => encoder.encode(text)

/** Read UTF-8. @throws PeerError: it is not valid UTF-8. */
export function readUtf8(bytes: Uint8Array): string {
  try {
    return decoder.decode(bytes)
  } catch {
    throw new PeerError('a text is not UTF-8')
  }
}

export function concat(...parts: readonly Uint8Array[]): Bytes {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    out.set(part, at)
    at += part.length
  }
  return out
}

export const equal = (a: Uint8Array, b: Uint8Array): boolean => a.length === b.length && a.every((byte, i) => byte === b[i])

export const hex = (bytes: Uint8Array): string => Array.from(bytes, byte => byte.toString(16).padStart(2, '0')).join('')

/** Read hexadecimal digits. @throws PeerError where they are none. */
export function fromHex(text: string): Bytes {
  if (!/^([0-9a-f]{2})*$/i.test(text)) throw new PeerError('that is not hexadecimal')
  return Uint8Array.from(text.match(/../g) ?? [], pair => parseInt(pair, 16))
}

/** Write an unsigned varint, 0 to 2**53 - 1. */
export function varint(value: number): Bytes {
  if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`${value} cannot be a varint`)
  const out: number[] = []
  let rest = value
  for (; rest > 127; rest = Math.floor(rest / 128)) out.push((rest % 128) | 128)
  out.push(rest)
  return Uint8Array.from(out)
}

export interface Varint {
  value: number
  /** The position after it. */
  end: number
}

/**
 * Read the varint at `at`; undefined when the bytes end inside it.
 * @throws PeerError: it is longer than `most` bytes, over 2**53 - 1, or not the shortest encoding of its value.
 */
export function readVarint(bytes: Uint8Array, at = 0, most = 8): Varint | undefined {
  let value = 0
  for (let i = 0; i < most; i++) {
    const byte = bytes[at + i]
    if (byte === undefined) return undefined
    value += (byte & 127) * 2 ** (7 * i)
    if (byte < 128) {
      if (byte === 0 && i > 0) throw new PeerError('a varint is longer than it needs to be')
      if (!Number.isSafeInteger(value)) break
      return { value, end: at + i + 1 }
    }
  }
  throw new PeerError('a varint is too long')
}

export const bytesField = (number: number, value: Uint8Array): Bytes => concat(varint((number << 3) | 2), varint(value.length), value)

/** Protobuf's varints hold 64 bits and need not be minimal. Larger values than a double holds are of no use here. */
function readProtobufVarint(bytes: Uint8Array, at: number): Varint {
  let value = 0
  for (let i = 0; i < 10; i++) {
    const byte = bytes[at + i]
    if (byte === undefined) break
    value += (byte & 127) * 2 ** (7 * i)
    if (byte < 128) return { value, end: at + i + 1 }
  }
  throw new PeerError('a protobuf varint is cut off or too long')
}

/** Give each field of a protobuf message; those of fixed width are passed over. @throws PeerError: it is malformed. */
export function* fields(bytes: Uint8Array): Generator<readonly [number, number | Uint8Array]> {
  let at = 0
  while (at < bytes.length) {
    const key = readProtobufVarint(bytes, at)
    const number = Math.floor(key.value / 8)
    const wire = key.value % 8
    at = key.end
    if (number < 1 || number >= 2 ** 29) throw new PeerError('that is not a protobuf field number')
    if (wire === 0) {
      const { value, end } = readProtobufVarint(bytes, at)
      at = end
      yield [number, value]
    } else if (wire === 2) {
      const { value: length, end } = readProtobufVarint(bytes, at)
      if (length > bytes.length - end) throw new PeerError(`protobuf field ${number} is cut off`)
      yield [number, bytes.subarray(end, end + length)]
      at = end + length
    } else if (wire === 5 || wire === 1) {
      at += wire === 5 ? 4 : 8
      if (at > bytes.length) throw new PeerError(`protobuf field ${number} is cut off`)
    } else throw new PeerError(`protobuf field ${number} has an unknown wire type`)
  }
}

const BASE58 = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz'
const MAX_BASE58 = 128

export function base58(bytes: Uint8Array): string {
  const digits: number[] = []
  for (const byte of bytes) {
    let carry = byte
    for (let i = 0; i < digits.length; i++) {
      carry += digits[i]! << 8
      digits[i] = carry % 58
      carry = Math.floor(carry / 58)
    }
    for (; carry > 0; carry = Math.floor(carry / 58)) digits.push(carry % 58)
  }
  let zeros = 0
  while (zeros < bytes.length && bytes[zeros] === 0) zeros++
  return '1'.repeat(zeros) + digits.reverse().map(digit => BASE58[digit]).join('')
}

/** Read base58btc. @throws PeerError: it is not valid base58btc, or over 128 characters. */
export function fromBase58(text: string): Bytes {
  if (text.length > MAX_BASE58) throw new PeerError('that is too long for a peer id')
  const bytes: number[] = []
  for (const character of text) {
    let carry = BASE58.indexOf(character)
    if (carry < 0) throw new PeerError('that has a character which no peer id has')
    for (let i = 0; i < bytes.length; i++) {
      carry += bytes[i]! * 58
      bytes[i] = carry & 255
      carry >>= 8
    }
    for (; carry > 0; carry >>= 8) bytes.push(carry & 255)
  }
  const zeros = /^1*/.exec(text)![0].length
  return Uint8Array.from([...new Array<number>(zeros).fill(0), ...bytes.reverse()])
}

export function base64url(bytes: Uint8Array): string {
  let binary = ''
  for (const byte of bytes) binary += String.fromCharCode(byte)
  return btoa(binary).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '')
}

/** Read base64url without padding. @throws PeerError: it is not valid base64url, or bits are left over. */
export function fromBase64url(text: string): Bytes {
  if (!/^[\w-]*$/.test(text) || text.length % 4 === 1) throw new PeerError('that is not base64url')
  const bytes = Uint8Array.from(atob(text.replaceAll('-', '+').replaceAll('_', '/')), character => character.charCodeAt(0))
  if (base64url(bytes) !== text) throw new PeerError('that is not base64url as it is written')
  return bytes
}
