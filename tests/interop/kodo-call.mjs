/**
 * The caller's side of kodo's call protocol, for js-libp2p: one stream is one call.
 *
 * Frames in both directions are a uvarint length and one MessagePack value. The caller sends `{op, args}`, for an
 * upload binary frames after it, and closes its side; the callee sends any number of `{item}` and then exactly one
 * `{done}` or `{error: {code, reason, message, data}}`.
 */
import { decode, encode } from '@msgpack/msgpack'

export const CALL_PROTOCOL = '/kodo/call/1'
export const MAX_FRAME_BYTES = 1024 * 1024

/** The callee refused; `code` is an HTTP status number, `reason` a stable word. */
export class CallError extends Error {
  constructor ({ code, reason, message = '', data = {} }) {
    super(message || reason)
    this.name = 'CallError'
    Object.assign(this, { code, reason, data })
  }
}

/** The callee broke the protocol. */
export class ProtocolError extends Error {
  name = 'ProtocolError'
}

/** One value as a frame: `Uint8Array`. */
export function encodeFrame (value) {
  const body = encode(value, { ignoreUndefined: true })
  if (body.length > MAX_FRAME_BYTES) {
    throw new RangeError(`a frame of ${body.length} bytes is over the limit of ${MAX_FRAME_BYTES}`)
  }
  const head = []
  let rest = body.length
  for (; rest > 0x7f; rest = Math.floor(rest / 128)) head.push((rest & 0x7f) | 0x80)
  head.push(rest)
  const frame = new Uint8Array(head.length + body.length)
  frame.set(head)
  frame.set(body, head.length)
  return frame
}

/** Cuts bytes, in whatever pieces they come, into values. */
export class FrameDecoder {
  #buffer = new Uint8Array(0)

  /** Bytes that have come and do not make a frame yet. */
  get pending () {
    return this.#buffer.length
  }

  /** Take some bytes; gives the values that are complete by now. */
  * push (bytes) {
    const joined = new Uint8Array(this.#buffer.length + bytes.length)
    joined.set(this.#buffer)
    joined.set(bytes, this.#buffer.length)
    this.#buffer = joined
    for (;;) {
      const head = this.#head()
      if (head === undefined || this.#buffer.length < head.size + head.length) return
      const body = this.#buffer.subarray(head.size, head.size + head.length)
      this.#buffer = this.#buffer.slice(head.size + head.length)
      yield decode(body)
    }
  }

  #head () {
    let length = 0
    for (let at = 0; at < this.#buffer.length; at++) {
      const byte = this.#buffer[at]
      length += (byte & 0x7f) * 2 ** (7 * at)
      if (length > MAX_FRAME_BYTES || at > 3) throw new ProtocolError(`a frame is over ${MAX_FRAME_BYTES} bytes`)
      if (byte < 0x80) return { length, size: at + 1 }
    }
    return undefined
  }
}

/**
 * Make one call over a connection. Yields the items and returns what was `done`; leaving early cancels the call.
 *
 * @param connection - a live js-libp2p connection
 * @param {string} op - e.g. `run.stream`
 * @param {object} args - its arguments
 * @param {{signal?: AbortSignal}} options - the caller's deadline
 */
export async function * call (connection, op, args = {}, { signal } = {}) {
  const stream = await connection.newStream(CALL_PROTOCOL, { signal })
  const cancel = () => stream.abort(signal.reason ?? new Error('cancelled'))
  signal?.addEventListener('abort', cancel, { once: true })
  let ended = false
  try {
    stream.send(encodeFrame({ op, args }))
    // Closing waits for the other side to confirm; its answer may well come first, so nobody waits for it here.
    stream.close({ signal }).catch(() => {})
    const frames = new FrameDecoder()
    for await (const chunk of stream) {
      for (const frame of frames.push(chunk.subarray())) {
        if (ended) throw new ProtocolError(`${op}: a frame came after the end`)
        if ('item' in frame) {
          yield frame.item
        } else if ('done' in frame) {
          ended = true
          return frame.done
        } else if ('error' in frame) {
          ended = true
          throw new CallError(frame.error)
        } else {
          throw new ProtocolError(`${op}: a frame is neither item, done nor error`)
        }
      }
    }
    signal?.throwIfAborted()
    throw new ProtocolError(`${op}: the stream ended without an answer, ${frames.pending} bytes into a frame`)
  } finally {
    signal?.removeEventListener('abort', cancel)
    if (!ended) stream.abort(new Error('the call was left'))
  }
}

/** Make a call that has one answer and no items. */
export async function request (connection, op, args = {}, options = {}) {
  const answer = await call(connection, op, args, options).next()
  if (!answer.done) throw new ProtocolError(`${op}: an item came where one answer was due`)
  return answer.value
}
