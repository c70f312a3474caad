/**
 * msgpack as calls use it: the values of JSON, and bytes. No extension types, keys are text, numbers are finite, nesting
 * and count are bounded; both ways the same. Integers that a double cannot hold are bigint, digit for digit.
 */
import { readUtf8, utf8 } from './bytes.ts'
import { CapacityError, PeerError, UsageError } from './errors.ts'
import type { Bytes, Row, Value } from './value.ts'

/** Maps and lists inside each other. */
export const MAX_DEPTH = 64
/** Values in one frame of a node: keys, elements, maps, lists. */
export const MAX_VALUES = 300_000

const cutOff = () => new PeerError('a msgpack value is cut off')

class Reader {
  readonly #bytes: Bytes
  readonly #view: DataView
  #at = 0
  #left: number
  readonly #parts: boolean

  constructor(bytes: Bytes, maxValues: number, parts: boolean) {
    this.#bytes = bytes
    this.#parts = parts
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.#left = maxValues
  }

  get atEnd(): boolean {
    return this.#at === this.#bytes.length
  }

  #need(count: number): number {
    const from = this.#at
    if (count > this.#bytes.length - from) throw cutOff()
    this.#at += count
    return from
  }

  #text(length: number): string {
    const from = this.#need(length)
    if (length < 24) {
      let text = ''
      for (let i = from; i < this.#at; i++) {
        const byte = this.#bytes[i]!
        if (byte > 127) return readUtf8(this.#bytes.subarray(from, this.#at))
        text += String.fromCharCode(byte)
      }
      return text
    }
    return readUtf8(this.#bytes.subarray(from, this.#at))
  }

  /** A copy, unless parts are wanted: a part of the frame keeps the whole of it alive. */
  #binary(length: number): Bytes {
    const from = this.#need(length)
    return this.#parts ? this.#bytes.subarray(from, this.#at) : this.#bytes.slice(from, this.#at)
  }

  #list(length: number, depth: number): Value[] {
    // Each element takes a byte at least: what cannot be there is not made room for.
    if (length > this.#bytes.length - this.#at) throw cutOff()
    this.#go(depth)
    const list: Value[] = []
    for (let i = 0; i < length; i++) list.push(this.value(depth + 1))
    return list
  }

  #map(length: number, depth: number): Row {
    if (length > (this.#bytes.length - this.#at) / 2) throw cutOff()
    this.#go(depth)
    const map: Row = {}
    for (let i = 0; i < length; i++) {
      const key = this.value(depth + 1)
      if (typeof key !== 'string') throw new PeerError('a map has a key that is not text')
      const value = this.value(depth + 1)
      // Assigned, this one would become the map's prototype.
      if (key === '__proto__') Object.defineProperty(map, key, { value, enumerable: true, configurable: true, writable: true })
      else map[key] = value
    }
    return map
  }

  #go(depth: number): void {
    if (depth >= MAX_DEPTH) throw new PeerError('maps and lists are nested too deeply')
  }

  #float(value: number): number {
    if (!Number.isFinite(value)) throw new PeerError('a number is not finite')
    return value
  }

  value(depth: number): Value {
    if (--this.#left < 0) throw new PeerError('a frame holds too many values')
    const view = this.#view
    const head = this.#bytes[this.#need(1)]!
    if (head < 0x80) return head
    if (head < 0x90) return this.#map(head & 15, depth)
    if (head < 0xa0) return this.#list(head & 15, depth)
    if (head < 0xc0) return this.#text(head & 31)
    if (head >= 0xe0) return head - 256
    switch (head) {
      case 0xc0:
        return null
      case 0xc2:
        return false
      case 0xc3:
        return true
      case 0xc4:
        return this.#binary(view.getUint8(this.#need(1)))
      case 0xc5:
        return this.#binary(view.getUint16(this.#need(2)))
      case 0xc6:
        return this.#binary(view.getUint32(this.#need(4)))
      case 0xca:
        return this.#float(view.getFloat32(this.#need(4)))
      case 0xcb:
        return this.#float(view.getFloat64(this.#need(8)))
      case 0xcc:
        return view.getUint8(this.#need(1))
      case 0xcd:
        return view.getUint16(this.#need(2))
      case 0xce:
        return view.getUint32(this.#need(4))
      case 0xcf: {
        const at = this.#need(8)
        const high = view.getUint32(at)
        return high < 0x20_0000 ? high * 0x1_0000_0000 + view.getUint32(at + 4) : view.getBigUint64(at)
      }
      case 0xd0:
        return view.getInt8(this.#need(1))
      case 0xd1:
        return view.getInt16(this.#need(2))
      case 0xd2:
        return view.getInt32(this.#need(4))
      case 0xd3: {
        const value = view.getBigInt64(this.#need(8))
        return value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER ? Number(value) : value
      }
      case 0xd9:
        return this.#text(view.getUint8(this.#need(1)))
      case 0xda:
        return this.#text(view.getUint16(this.#need(2)))
      case 0xdb:
        return this.#text(view.getUint32(this.#need(4)))
      case 0xdc:
        return this.#list(view.getUint16(this.#need(2)), depth)
      case 0xdd:
        return this.#list(view.getUint32(this.#need(4)), depth)
      case 0xde:
        return this.#map(view.getUint16(this.#need(2)), depth)
      case 0xdf:
        return this.#map(view.getUint32(this.#need(4)), depth)
      default:
        throw new PeerError('an extension type of msgpack is not allowed')
    }
  }
}

export interface DecodeOptions {
  maxValues?: number
  /** Give bytes as parts of what is read: for a reader that copies them at once. */
  parts?: boolean
}

/** Read one value, and nothing after it. @throws PeerError: it is not one, or over a bound. */
export function decode(bytes: Bytes, options: DecodeOptions = {}): Value {
  const reader = new Reader(bytes, options.maxValues ?? MAX_VALUES, options.parts ?? false)
  const value = reader.value(0)
  if (!reader.atEnd) throw new PeerError('something follows a msgpack value')
  return value
}

class Writer {
  #out = new Uint8Array(256)
  #view = new DataView(this.#out.buffer)
  #length = 0

  get bytes(): Bytes {
    return this.#out.slice(0, this.#length)
  }

  #room(count: number): number {
    const at = this.#length
    if (at + count > this.#out.length) {
      const larger = new Uint8Array(Math.max(this.#out.length * 2, at + count))
      larger.set(this.#out)
      this.#out = larger
      this.#view = new DataView(larger.buffer)
    }
    this.#length += count
    return at
  }

  #byte(value: number): void {
    const at = this.#room(1)
    this.#out[at] = value
  }

  /** A head byte, and a number of 1, 2 or 4 bytes behind it. */
  #sized(head: number, size: 1 | 2 | 4, value: number): void {
    const at = this.#room(1 + size)
    this.#out[at] = head
    if (size === 1) this.#view.setUint8(at + 1, value)
    else if (size === 2) this.#view.setUint16(at + 1, value)
    else this.#view.setUint32(at + 1, value)
  }

  #head(length: number, fixed: number, fixedMost: number, heads: readonly [number, number, number]): void {
    if (length <= fixedMost) this.#byte(fixed | length)
    else if (heads[0] && length < 2 ** 8) this.#sized(heads[0], 1, length)
    else if (length < 2 ** 16) this.#sized(heads[1], 2, length)
    else this.#sized(heads[2], 4, length)
  }

  #raw(bytes: Uint8Array): void {
    const at = this.#room(bytes.length)
    this.#out.set(bytes, at)
  }

  #float(value: number): void {
    if (!Number.isFinite(value)) throw new UsageError('A number has to be finite.')
    const at = this.#room(9)
    this.#out[at] = 0xcb
    this.#view.setFloat64(at + 1, value)
  }

  #integer(value: number): void {
    if (value >= 0) {
      if (value < 128) this.#byte(value)
      else if (value < 2 ** 8) this.#sized(0xcc, 1, value)
      else if (value < 2 ** 16) this.#sized(0xcd, 2, value)
      else if (value < 2 ** 32) this.#sized(0xce, 4, value)
      else this.#bigint(BigInt(value))
    } else if (value >= -32) this.#byte(value + 256)
    else if (value >= -(2 ** 7)) this.#sized(0xd0, 1, value + 2 ** 8)
    else if (value >= -(2 ** 15)) this.#sized(0xd1, 2, value + 2 ** 16)
    else if (value >= -(2 ** 31)) this.#sized(0xd2, 4, value + 2 ** 32)
    else this.#bigint(BigInt(value))
  }

  #bigint(value: bigint): void {
    if (value >= Number.MIN_SAFE_INTEGER && value <= 0xffff_ffffn && value >= -(2n ** 31n)) {
      this.#integer(Number(value))
      return
    }
    if (value >= 2n ** 64n || value < -(2n ** 63n)) throw new UsageError('An integer has to fit 64 bits.')
    const at = this.#room(9)
    this.#out[at] = value < 0n ? 0xd3 : 0xcf
    if (value < 0n) this.#view.setBigInt64(at + 1, value)
    else this.#view.setBigUint64(at + 1, value)
  }

  put(value: unknown, depth: number): void {
    if (value === null || value === undefined) this.#byte(0xc0)
    else if (typeof value === 'boolean') this.#byte(value ? 0xc3 : 0xc2)
    else if (typeof value === 'number') {
      // Beyond 2**53 too, what is whole is written as an integer while 64 bits hold it.
      if (Number.isInteger(value) && Math.abs(value) < 2 ** 63 && !Object.is(value, -0)) this.#integer(value)
      else this.#float(value)
    } else if (typeof value === 'bigint') this.#bigint(value)
    else if (typeof value === 'string') this.#text(value)
    else if (value instanceof Uint8Array) {
      this.#head(value.length, 0, -1, [0xc4, 0xc5, 0xc6])
      this.#raw(value)
    } else if (typeof value === 'object') this.#collection(value, depth)
    else throw new UsageError(`A ${typeof value} cannot be sent.`)
  }

  #text(value: string): void {
    if (/\p{Surrogate}/u.test(value)) throw new UsageError('A text has half a character in it.')
    const bytes = utf8(value)
    this.#head(bytes.length, 0xa0, 31, [0xd9, 0xda, 0xdb])
    this.#raw(bytes)
  }

  #collection(value: object, depth: number): void {
    if (depth >= MAX_DEPTH) throw new UsageError('Maps and lists are nested too deeply.')
    if (Array.isArray(value)) {
      this.#head(value.length, 0x90, 15, [0, 0xdc, 0xdd])
      for (const each of value) this.put(each, depth + 1)
      return
    }
    const prototype: unknown = Object.getPrototypeOf(value)
    if (prototype !== Object.prototype && prototype !== null) throw new UsageError('Only plain values can be sent.')
    const entries = Object.entries(value).filter(([, each]) => each !== undefined)
    this.#head(entries.length, 0x80, 15, [0, 0xde, 0xdf])
    for (const [key, each] of entries) {
      this.#text(key)
      this.put(each, depth + 1)
    }
  }
}

/**
 * Write one value; undefined fields of maps are left out.
 * @throws UsageError: it has no place on the wire. CapacityError: it takes over `maxBytes`.
 */
export function encode(value: unknown, maxBytes = 1 << 20): Bytes {
  const writer = new Writer()
  writer.put(value, 0)
  const bytes = writer.bytes
  if (bytes.length > maxBytes) throw new CapacityError(`A call of ${bytes.length} bytes is over the limit of ${maxBytes}.`)
  return bytes
}
