/** A run that is followed: every event once and in order, over as many sessions as it takes. */
import { CallError, DeadlineError, NetworkError, UnreachableError } from '../core/errors.ts'
import { type RunEvent, RunView, readEvent } from '../core/runview.ts'
import { fieldOf, isRow } from '../core/value.ts'
import type { FollowedRun, FollowNews, FollowOptions, FollowStatus, NodeClient } from './api.ts'
import { Backoff } from './backoff.ts'
import { Listeners } from './listeners.ts'
import type { NodeSessions } from './node_sessions.ts'

const KEEP_EVENTS = 200_000
/** Bytes of events, as they came over the wire, that are kept for showing. */
const KEEP_BYTES = 64 << 20
/** Bytes that the node may send ahead of what was read. */
const AHEAD = 1 << 20
/** News are told so often, ms. */
const FRAME_MS = 16

/** Write what is said to the node: events up to `seq` were read. */
export function seenUpTo(seq: number): Uint8Array {
  const bytes = new Uint8Array(8)
  new DataView(bytes.buffer).setBigUint64(0, BigInt(seq))
  return bytes
}

export class Follow implements FollowedRun {
  readonly view = new RunView()
  readonly #events: RunEvent[] = []
  readonly #node: NodeClient & NodeSessions
  readonly #news = new Listeners<FollowNews>()
  readonly #stopped = new AbortController()
  readonly #live: boolean
  readonly #keep: number
  readonly #end: Promise<void>
  #last: number
  #dropped = 0
  #status: FollowStatus = 'connecting'
  #error: Error | undefined
  #pending: RunEvent[] = []
  #timer: ReturnType<typeof setTimeout> | undefined
  /** What came together: how many events of how many bytes. */
  #batches: { count: number; bytes: number }[] = []
  #bytes = 0
  /** Whether the node knows the arg `ahead`. */
  #bounded = true

  constructor(
    node: NodeClient & NodeSessions,
    readonly fid: string,
    options: FollowOptions
  ) {
    this.#node = node
    this.#last = options.after ?? 0
    this.#live = options.live ?? true
    this.#keep = options.keep ?? KEEP_EVENTS
    this.#end = this.#run()
  }

  get node(): NodeClient {
    return this.#node
  }

  get events(): readonly RunEvent[] {
    return this.#events
  }

  get dropped(): number {
    return this.#dropped
  }

  get status(): FollowStatus {
    return this.#status
  }

  get error(): Error | undefined {
    return this.#error
  }

  on(listener: (news: FollowNews) => void): () => void {
    return this.#news.on(listener)
  }

  async done(): Promise<RunView> {
    await this.#end
    if (this.#error) throw this.#error
    return this.view
  }

  stop(): void {
    this.#stopped.abort()
  }

  #become(status: FollowStatus): void {
    if (this.#status === status) return
    this.#flush()
    this.#status = status
    this.#news.tell({ type: 'status', status })
  }

  /** Follow over sessions until the end; never throws. */
  async #run(): Promise<void> {
    const backoff = new Backoff()
    const { signal } = this.#stopped
    // The caller listens first.
    await Promise.resolve()
    for (;;) {
      try {
        await this.#stream(backoff, signal)
        this.#become('over')
        return
      } catch (error) {
        if (!(await this.#goesOn(error, signal))) return
        try {
          this.#become('away')
          await backoff.wait(signal)
        } catch {
          this.#fail(error as Error)
          return
        }
      }
    }
  }

  /** Decide whether what broke is to be tried again; where not, it has failed. */
  async #goesOn(error: unknown, signal: AbortSignal): Promise<boolean> {
    if (signal.aborted) this.#fail(new NetworkError('It is not followed any more.'))
    else if (error instanceof CallError) {
      if (error.code === 429 || error.code === 503) return true
      try {
        if (error.code === 401 && (await this.#node.logins.again(await this.#node.session(signal)))) return true
      } catch {
        return true
      }
      this.#fail((error.code === 404 ? this.#node.whyGone(this.fid) : undefined) ?? error)
    } else if (error instanceof NetworkError || error instanceof DeadlineError) return true
    else this.#fail(error as Error)
    return false
  }

  #fail(error: Error): void {
    this.#error = error
    this.#become('failed')
  }

  async #stream(backoff: Backoff, signal: AbortSignal): Promise<void> {
    const session = await this.#node.session(signal)
    const args = { fid: this.fid, after: this.#last, follow: this.#live, ...(this.#bounded ? { ahead: AHEAD } : {}) }
    const call = session.call('run.stream', this.#node.about('run.stream', args), { open: this.#bounded, signal })
    try {
      await call.taken()
      this.#become('following')
      for await (const batch of call.batches()) {
        backoff.succeeded()
        this.#take(batch.map(readEvent), call.batchBytes)
        call.say(seenUpTo(this.#last))
      }
    } catch (error) {
      // A node of an earlier release knows no such arg.
      if (error instanceof CallError && error.reason === 'bad-args' && fieldOf(error.data, 'arg') === 'ahead' && this.#bounded) {
        this.#bounded = false
        return this.#stream(backoff, signal)
      }
      throw error
    }
    const done = await call.done()
    const state = isRow(done) ? fieldOf(done, 'state') : undefined
    if (this.#live && state !== 'done' && state !== 'error') throw new UnreachableError('The node ended the stream of a run that is not over.')
  }

  #take(events: readonly RunEvent[], bytes: number): void {
    let count = 0
    for (const event of events) {
      if (event.seq <= this.#last) continue
      this.#last = event.seq
      this.view.apply(event)
      this.#events.push(event)
      this.#pending.push(event)
      count++
    }
    if (count === 0) return
    this.#batches.push({ count, bytes })
    this.#bytes += bytes
    this.#drop()
    this.#timer ??= setTimeout(() => this.#flush(), FRAME_MS)
  }

  /** Forget the oldest events, a tenth at once: each time costs as much as all that are kept. */
  #drop(): void {
    if (this.#events.length <= this.#keep && this.#bytes <= KEEP_BYTES) return
    let count = 0
    while (this.#batches.length > 1 && (this.#events.length - count > this.#keep * 0.9 || this.#bytes > KEEP_BYTES * 0.9)) {
      const oldest = this.#batches.shift()!
      count += oldest.count
      this.#bytes -= oldest.bytes
    }
    this.#events.splice(0, count)
    this.#dropped += count
  }

  #flush(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    if (this.#pending.length === 0) return
    const events = this.#pending
    this.#pending = []
    this.#news.tell({ type: 'events', events })
  }
}
