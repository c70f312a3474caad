/** What downloads and uploads have in common: how far they are, who wants to know, and their end. */
import type { TransferNews, TransferStatus } from '../net/api.ts'
import { Listeners } from '../net/listeners.ts'

/** News of progress are told so often, ms. */
const FRAME_MS = 50

export abstract class Transfer<Result> {
  readonly done: Promise<Result>
  protected readonly stopped = new AbortController()
  readonly #news = new Listeners<TransferNews>()
  #status: TransferStatus = 'running'
  #bytes = 0
  #timer: ReturnType<typeof setTimeout> | undefined

  protected constructor(signal: AbortSignal | undefined) {
    signal?.addEventListener('abort', () => this.stopped.abort(signal.reason))
    if (signal?.aborted) this.stopped.abort(signal.reason)
    // In a later turn: the class that is made has its fields then, and the caller listens.
    this.done = Promise.resolve().then(() => this.#run())
    this.done.catch(() => undefined)
  }

  async #run(): Promise<Result> {
    try {
      const result = await this.run(this.stopped.signal)
      this.become('done')
      return result
    } catch (error) {
      this.become(this.stopped.signal.aborted ? 'cancelled' : 'failed')
      throw error
    }
  }

  protected abstract run(signal: AbortSignal): Promise<Result>

  get status(): TransferStatus {
    return this.#status
  }

  get bytes(): number {
    return this.#bytes
  }

  on(listener: (news: TransferNews) => void): () => void {
    return this.#news.on(listener)
  }

  cancel(): void {
    this.stopped.abort()
  }

  protected become(status: TransferStatus): void {
    if (this.#status === status) return
    this.#status = status
    this.#tell()
  }

  protected progress(bytes: number): void {
    this.#bytes = bytes
    this.#timer ??= setTimeout(() => this.#tell(), FRAME_MS)
  }

  #tell(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#news.tell({ status: this.#status, bytes: this.#bytes })
  }

  /** What a source of bytes tells of the way to it. */
  protected readonly weather = {
    away: () => this.become('away'),
    back: () => this.become('running')
  }
}
