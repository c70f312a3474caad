/** The caller's side of `/kodo/call/1` on one stream: items as they come, then exactly one end. */
import { MAX_FRAME_BYTES, encodeFrame, readAnswer } from '../core/callframe.ts'
import { BrokenError, CapacityError, DeadlineError, KodoError, PeerError } from '../core/errors.ts'
import { PrefixedFrames } from '../core/framing.ts'
import { decode } from '../core/msgpack.ts'
import type { Dialing } from '../core/negotiate.ts'
import type { Bytes, Value } from '../core/value.ts'
import type { Stream } from './stream.ts'

const ITEM_LIMIT = 32 << 20

export interface CallSettings {
  /** Bytes that follow the args, piece by piece; at most 1 MiB each with its head. */
  upload?: AsyncIterable<Uint8Array>
  /** Leave the way out open, for `say`. */
  open?: boolean
  /** Give bytes as parts of their frames: for who copies them in the turn in which they are given. */
  parts?: boolean
  /** Most bytes of items that may wait; by default 32 MiB. */
  limit?: number
  /** Milliseconds from the beginning to the end; none by default. */
  timeout?: number
  signal?: AbortSignal | undefined
}

export class Call {
  readonly op: string
  readonly #stream: Stream
  readonly #dialing: Dialing
  readonly #frames = new PrefixedFrames(MAX_FRAME_BYTES, 'call frame')
  readonly #limit: number
  readonly #parts: boolean
  #waiting: Value[] = []
  #waitingBytes = 0
  /** Bytes, on the wire, of the batch that was given last. */
  batchBytes = 0
  #end: { value: Value } | { error: Error } | undefined
  #wake: () => void = () => undefined
  #timer: ReturnType<typeof setTimeout> | undefined
  readonly #signal: AbortSignal | undefined

  constructor(stream: Stream, dialing: Dialing, first: Bytes, op: string, settings: CallSettings) {
    this.op = op
    this.#stream = stream
    this.#dialing = dialing
    this.#limit = settings.limit ?? ITEM_LIMIT
    this.#parts = settings.parts ?? false
    this.#signal = settings.signal
    stream.handle({ onData: bytes => this.#take(bytes), onEnd: error => this.#ended(error) })
    if (settings.timeout) {
      const seconds = settings.timeout / 1000
      this.#timer = setTimeout(() => this.#fail(new DeadlineError(`${op}: no answer within ${seconds} s`)), settings.timeout)
    }
    if (this.#signal?.aborted) this.#aborted()
    else this.#signal?.addEventListener('abort', this.#aborted)
    void this.#send(first, settings)
  }

  async #send(first: Bytes, settings: CallSettings): Promise<void> {
    try {
      await this.#stream.write(first)
      if (settings.upload) for await (const piece of settings.upload) await this.#stream.write(encodeFrame(piece))
      if (!settings.open) this.#stream.closeWrite()
    } catch (error) {
      // The node's answer says why it takes no more; without one the stream's end does.
      if (!(error instanceof BrokenError)) this.#fail(error as Error)
    }
  }

  /** Send bytes after the args of a call that was left open; nothing happens once it has ended. */
  say(bytes: Uint8Array): void {
    if (!this.#end) this.#stream.write(encodeFrame(bytes)).catch(() => undefined)
  }

  readonly #aborted = () => this.#fail(abortError(this.#signal))

  #take(bytes: Bytes): void {
    if (this.#end) return
    try {
      const payload = this.#dialing.feed(bytes)
      for (const frame of this.#frames.feed(payload)) this.#answer(frame)
    } catch (error) {
      this.#fail(error as Error)
    }
    this.#wake()
  }

  #answer(frame: Bytes): void {
    if (this.#end) return
    const answer = readAnswer(decode(frame, { parts: this.#parts }))
    if (answer.kind === 'item') {
      this.#waiting.push(answer.value)
      this.#waitingBytes += frame.length
      if (this.#waitingBytes > this.#limit) throw new CapacityError(`${this.op} sent more than is read: over ${this.#limit} bytes wait.`)
    } else this.#finish(answer.kind === 'done' ? { value: answer.value } : { error: answer.error })
  }

  #ended(error: KodoError | undefined): void {
    if (!this.#end) this.#finish({ error: error ?? new BrokenError(`${this.op}: the node ended the stream without an answer`) })
    this.#wake()
  }

  #finish(end: { value: Value } | { error: Error }): void {
    this.#end = end
    clearTimeout(this.#timer)
    this.#signal?.removeEventListener('abort', this.#aborted)
    this.#stream.closeWrite()
  }

  #fail(error: Error): void {
    if (this.#end) return
    this.#waiting = []
    this.#finish({ error })
    this.#stream.reset()
    this.#wake()
  }

  /** Wait until the node has taken the call up: its first bytes are here. @throws what the call ends with before. */
  async taken(): Promise<void> {
    while (!this.#dialing.agreed && !this.#end) await this.#news()
    if (this.#end && 'error' in this.#end) throw this.#end.error
  }

  /** Wait until something happens. Several may wait. */
  #news(): Promise<void> {
    return new Promise(resolve => {
      const before = this.#wake
      this.#wake = () => {
        this.#wake = () => undefined
        before()
        resolve()
      }
    })
  }

  /** Give the call up, where it has not ended. */
  cancel(): void {
    this.#fail(new BrokenError('The call was given up.'))
  }

  /** Give the items as they arrive, several at once. @throws what the call ends with, after the last item. */
  async *batches(): AsyncGenerator<Value[]> {
    try {
      for (;;) {
        if (this.#waiting.length > 0) {
          const batch = this.#waiting
          this.#waiting = []
          this.batchBytes = this.#waitingBytes
          this.#waitingBytes = 0
          yield batch
        } else if (this.#end) {
          if ('error' in this.#end) throw this.#end.error
          return
        } else await this.#news()
      }
    } finally {
      this.cancel()
    }
  }

  /** Give the end of a call whose items are passed over, or were read. @throws what it ends with. */
  async done(): Promise<Value> {
    while (!this.#end) {
      if (this.#waiting.length > 0) this.#fail(new PeerError(`${this.op} answered with an item where none is expected`))
      else await this.#news()
    }
    if ('error' in this.#end) throw this.#end.error
    return this.#end.value
  }
}

/** Return why a signal was aborted, as an error. */
export function abortError(signal: AbortSignal | undefined): Error {
  const reason: unknown = signal?.reason
  return reason instanceof Error ? reason : new DOMException('It was given up.', 'AbortError')
}
