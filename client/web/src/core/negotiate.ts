/** Which protocol a stream speaks: multistream-select 1.0, as its dialer. The first payload goes out with the proposal. */
import { concat, readUtf8, readVarint, utf8, varint } from './bytes.ts'
import { PeerError } from './errors.ts'
import type { Bytes } from './value.ts'

const HEADER = '/multistream/1.0.0'
const MAX_TOKEN_BYTES = 1024

/** Write one token: length, text, newline. */
export function encodeToken(text: string): Bytes {
  const body = utf8(`${text}\n`)
  return concat(varint(body.length), body)
}

/** The side that opened the stream and proposes one protocol. */
export class Dialing {
  readonly #expected: string[]
  #buffer: Bytes = new Uint8Array(0)

  constructor(readonly protocol: string) {
    this.#expected = [HEADER, protocol]
  }

  /** What is to be sent first; payload may follow at once. */
  hello(): Bytes {
    return concat(encodeToken(HEADER), encodeToken(this.protocol))
  }

  /** Whether the other side has agreed. */
  get agreed(): boolean {
    return this.#expected.length === 0
  }

  /** Take bytes; return those that are payload. @throws PeerError: the answer is no, or not one. */
  feed(data: Bytes): Bytes {
    if (this.#expected.length === 0) return data
    this.#buffer = this.#buffer.length > 0 ? concat(this.#buffer, data) : data
    while (this.#expected.length > 0) {
      const read = readVarint(this.#buffer, 0, 2)
      if (!read) break
      if (read.value < 1 || read.value > MAX_TOKEN_BYTES) throw new PeerError('a protocol name is too long or empty')
      if (this.#buffer.length < read.end + read.value) break
      const text = readUtf8(this.#buffer.subarray(read.end, read.end + read.value))
      if (text === 'na\n') throw new PeerError(`the other side does not speak ${this.protocol}`)
      if (text !== `${this.#expected[0]!}\n`) throw new PeerError('the other side answers with another protocol')
      this.#expected.shift()
      this.#buffer = this.#buffer.subarray(read.end + read.value)
    }
    if (this.#expected.length > 0) return new Uint8Array(0)
    const rest = this.#buffer
    this.#buffer = new Uint8Array(0)
    return rest
  }
}
