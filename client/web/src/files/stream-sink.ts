/** Streams a file through the service worker into the browser's own downloads: nothing of it is kept here. */
import { BrokenError, UsageError } from '../core/errors.ts'
import type { Bytes } from '../core/value.ts'
import { policy } from '../trusted.ts'
import type { Sink, SinkTarget } from './sink.ts'

/** What the page tells the worker: from then on `download/ID` is answered by what comes through the port. */
export interface StreamOffer {
  type: 'kodo-download'
  id: string
  name: string
  size: number | undefined
  mediaType: string
}

/** Return whether this page can have a service worker. */
export const hasStream = (): boolean => isSecureContext && 'serviceWorker' in navigator

/** Return the worker, once it is active. */
async function worker(): Promise<ServiceWorker> {
  const registration = await navigator.serviceWorker.register(policy.createScriptURL('sw.js'))
  const pending = registration.active ?? registration.waiting ?? registration.installing
  if (!pending) throw new UsageError('This browser runs no service worker here.')
  if (pending.state !== 'activated')
    await new Promise<void>((resolve, reject) => {
      pending.addEventListener('statechange', () => {
        if (pending.state === 'activated') resolve()
        else if (pending.state === 'redundant') reject(new UsageError('This browser runs no service worker here.'))
      })
    })
  return pending
}

export class StreamSink implements Sink {
  readonly kind = 'stream'
  readonly have = 0
  readonly #port: MessagePort
  /** How many pieces the worker wants now. */
  #wanted = 0
  #cancelled = false
  #wake: () => void = () => undefined

  private constructor(port: MessagePort) {
    this.#port = port
    port.onmessage = ({ data }) => {
      if (data === 'pull') this.#wanted++
      else if (data === 'cancel') this.#cancelled = true
      this.#wake()
    }
  }

  static async open(target: SinkTarget): Promise<StreamSink> {
    const active = await worker()
    const { port1, port2 } = new MessageChannel()
    const offer: StreamOffer = { type: 'kodo-download', id: crypto.randomUUID(), name: target.name, size: target.size, mediaType: target.mediaType }
    const known = new Promise<void>(resolve => {
      port1.addEventListener('message', () => resolve(), { once: true })
    })
    const sink = new StreamSink(port1)
    active.postMessage(offer, [port2])
    await known
    const anchor = document.createElement('a')
    anchor.href = `download/${offer.id}`
    anchor.click()
    return sink
  }

  async write(bytes: Bytes): Promise<void> {
    while (this.#wanted === 0 && !this.#cancelled)
      await new Promise<void>(resolve => {
        this.#wake = resolve
      })
    if (this.#cancelled) throw new BrokenError('The download was cancelled in the browser.')
    this.#wanted--
    this.#port.postMessage(bytes, [bytes.buffer])
  }

  finish(): Promise<void> {
    this.#port.postMessage('end')
    return Promise.resolve()
  }

  abort(): Promise<void> {
    this.#port.postMessage('abort')
    this.#port.close()
    return Promise.resolve()
  }
}
