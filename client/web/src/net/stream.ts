/** A libp2p stream in a data channel: framing, half-closing, and how much may be waiting to be sent. */
import { BrokenError, type KodoError, PeerError } from '../core/errors.ts'
import { encodeMessage, decodeMessage, type Flag, MAX_MESSAGE_BYTES, MAX_PAYLOAD_BYTES, PrefixedFrames } from '../core/framing.ts'
import { HalfClose, stepOf, type StreamStep } from '../core/halfclose.ts'
import type { Bytes } from '../core/value.ts'

/** Writers wait while more than this is in the channel's buffer. */
const SEND_AHEAD = 1 << 20

export interface StreamHandlers {
  /** Bytes arrived; they belong to the stream's buffer and are good until the handler returns. */
  onData(payload: Bytes): void
  /** The way in has ended: in order, or broken with an error. Called once. */
  onEnd(error: KodoError | undefined): void
}

export class Stream {
  readonly #channel: RTCDataChannel
  readonly #ways = new HalfClose()
  readonly #messages = new PrefixedFrames(MAX_MESSAGE_BYTES - 2, 'stream message')
  readonly #opened: Promise<void>
  #handlers: StreamHandlers | undefined
  #ended = false

  constructor(channel: RTCDataChannel) {
    this.#channel = channel
    channel.binaryType = 'arraybuffer'
    channel.bufferedAmountLowThreshold = SEND_AHEAD / 2
    channel.onmessage = ({ data }) => this.#take(data)
    channel.onclose = () => this.#closed()
    this.#opened = new Promise((resolve, reject) => {
      if (channel.readyState === 'open') resolve()
      else {
        channel.onopen = () => resolve()
        channel.addEventListener('close', () => reject(new BrokenError('The connection broke.')))
      }
    })
    this.#opened.catch(() => undefined)
  }

  /** Begin to read; what arrives before is lost, so this is called in the turn that made the stream. */
  handle(handlers: StreamHandlers): void {
    this.#handlers = handlers
  }

  /** Wait until bytes can be sent. @throws BrokenError: the channel closed. */
  opened(): Promise<void> {
    return this.#opened
  }

  #take(data: unknown): void {
    if (this.#ways.done) return
    try {
      if (!(data instanceof ArrayBuffer)) throw new PeerError('a stream carries text')
      for (const body of this.#messages.feed(new Uint8Array(data))) {
        const { flag, payload } = decodeMessage(body)
        if (payload.length > 0) {
          this.#step('remoteData')
          if (this.#ways.read === 'open') this.#handlers?.onData(payload as Bytes)
        }
        if (flag !== undefined) this.#step(stepOf(flag))
      }
    } catch (error) {
      this.reset(error as KodoError)
    }
  }

  #step(step: StreamStep): void {
    const answer = this.#ways.on(step)
    if (answer !== undefined) this.#send(answer)
    if (step === 'remoteStopSending' && this.#ways.write === 'stopped') this.#step('localCloseWrite')
    if (this.#ways.read === 'closed') this.#end(undefined)
    else if (this.#ways.read === 'reset') this.#end(new BrokenError('The other side gave the stream up.'))
    if (this.#ways.done) this.#channel.close()
  }

  #end(error: KodoError | undefined): void {
    if (this.#ended) return
    this.#ended = true
    this.#handlers?.onEnd(error)
  }

  #closed(): void {
    this.#ways.on('channelClosed')
    this.#end(this.#ways.read === 'closed' ? undefined : new BrokenError('The connection broke.'))
  }

  #send(flag: Flag | undefined, payload?: Uint8Array): void {
    if (this.#channel.readyState === 'open') this.#channel.send(encodeMessage(flag, payload))
  }

  /**
   * Write bytes; returns when they may be followed by more.
   * @throws BrokenError: the stream ended, or its reader wants no more.
   */
  async write(bytes: Uint8Array): Promise<void> {
    await this.#opened
    for (let at = 0; at < bytes.length; at += MAX_PAYLOAD_BYTES) {
      while (this.#channel.bufferedAmount > SEND_AHEAD) await this.#drained()
      if (this.#ways.write !== 'open' || this.#channel.readyState !== 'open') throw new BrokenError('The other side takes no more.')
      this.#send(undefined, bytes.subarray(at, at + MAX_PAYLOAD_BYTES))
    }
  }

  #drained(): Promise<void> {
    return new Promise(resolve => {
      const settle = () => {
        this.#channel.removeEventListener('bufferedamountlow', settle)
        this.#channel.removeEventListener('close', settle)
        resolve()
      }
      this.#channel.addEventListener('bufferedamountlow', settle)
      this.#channel.addEventListener('close', settle)
      if (this.#channel.readyState !== 'open') settle()
    })
  }

  /** End the way out: nothing more is sent. */
  closeWrite(): void {
    if (this.#ways.write === 'open' || this.#ways.write === 'stopped') this.#step('localCloseWrite')
  }

  /** Give the stream up, both ways. */
  reset(error: KodoError = new BrokenError('The call was given up.')): void {
    if (!this.#ways.done) {
      const flag = this.#ways.on('localReset')
      if (flag !== undefined) this.#send(flag)
      this.#channel.close()
    }
    this.#end(error)
  }
}
