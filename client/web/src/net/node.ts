/** A node as a page deals with it: dialled when needed, again when it was lost, found again when it moved. */
import { CallError, DeadlineError, IdentityError, NetworkError, PeerError, UnreachableError } from '../core/errors.ts'
import { type Multiaddr, isLocal, parseMultiaddr } from '../core/multiaddr.ts'
import { hex } from '../core/bytes.ts'
import type { Signer } from '../core/noise.ts'
import { type Path, delaysOf } from '../core/path.ts'
import type { TurnOffer } from '../core/turn.ts'
import { type Bytes, type Row, fieldOf } from '../core/value.ts'
import type { CallOptions, NodeNews, NodeStatus, NodeTarget } from './api.ts'
import { sleep } from './backoff.ts'
import { abortError } from './calls.ts'
import { dial } from './dial.ts'
import { Listeners } from './listeners.ts'
import { type LoginContext, LoginKeeper } from './logins.ts'
import { NodeCalls } from './node_calls.ts'
import type { PinStore } from './remembered.ts'
import type { Session } from './session.ts'
import { MOST_TURNED, TURN_AFTER, TURN_FIND, TurnError, gather, inTurn } from './turn.ts'

const DIAL_MS = 10_000
const MOST_DIALS = 16
const CALL_MS = 30_000
/** Most addresses that are remembered of a node: as many as its record has. */
const MAX_ADDRESSES = 32
/** What a node's client needs of the engine. */
export interface NodeContext extends LoginContext {
  pins: PinStore
  /** Return where a node is said to be now. */
  findAddresses(peerId: string, signal: AbortSignal): Promise<readonly string[]>
  /** Ask each registry what it offers to reach a node over TURN servers. */
  findTurn(peerId: string, signal: AbortSignal): readonly Promise<TurnOffer>[]
}

export class RemoteNode extends NodeCalls {
  readonly logins: LoginKeeper
  readonly #context: NodeContext
  readonly #news = new Listeners<NodeNews>()
  readonly #names = new Set<string>()
  readonly #pinned = new Set<string>()
  /** Secrets of links that each session opens, by what their run is; and why one is dead. */
  readonly #links = new Map<string, { fid: string; secret: Bytes; dead?: CallError }>()
  #label: string | undefined
  #addresses: Multiaddr[] = []
  #session: Session | undefined
  #dialling: { promise: Promise<Session>; abort: AbortController; waiting: number } | undefined
  #status: NodeStatus = 'idle'
  #path: Path | undefined
  #lost = false

  constructor(
    readonly peerId: string,
    context: NodeContext
  ) {
    super()
    this.#context = context
    const desk = { place: peerId, peerId: () => Promise.resolve(peerId), ask: this.ask.bind(this) }
    this.logins = new LoginKeeper(desk, context)
  }

  on(listener: (news: NodeNews) => void): () => void {
    return this.#news.on(listener)
  }

  get label(): string {
    const [name] = this.#names
    return name ?? this.#label ?? this.peerId
  }

  get status(): NodeStatus {
    return this.#status
  }

  get path(): Path | undefined {
    return this.#session?.path ?? this.#path
  }

  /** Where it is dialled, as texts; for `knownRuns`. */
  get target(): NodeTarget {
    const [name] = this.#names
    return { peerId: this.peerId, addrs: this.#texts, ...(name === undefined ? {} : { name }) }
  }

  #texts: string[] = []

  /** Take what else is known of the node. Addresses that are none are passed over: some are of other transports. */
  learn(target: NodeTarget): void {
    if (target.name !== undefined) this.#names.add(target.name)
    this.#label = target.label ?? this.#label
    this.#learnAddresses(target.addrs)
  }

  /** The latest addresses come first. */
  #learnAddresses(texts: readonly string[]): boolean {
    const known = new Map(this.#texts.map((text, i) => [text, this.#addresses[i]!]))
    const all = new Map<string, Multiaddr>()
    let news = false
    for (const text of texts) {
      try {
        const address = parseMultiaddr(text)
        if (address.peerId !== undefined && address.peerId !== this.peerId) continue
        news ||= !known.has(text)
        all.set(text, address)
      } catch {
        continue
      }
    }
    for (const [text, address] of known) if (!all.has(text)) all.set(text, address)
    this.#texts = [...all.keys()].slice(0, MAX_ADDRESSES)
    this.#addresses = [...all.values()].slice(0, MAX_ADDRESSES)
    return news
  }

  #become(status: NodeStatus, error?: Error): void {
    if (this.#status === status) return
    this.#status = status
    this.#news.tell(error === undefined ? { type: 'status', status } : { type: 'status', status, error })
  }

  /** Return the session that lives, or dial. One dial serves all who wait; it ends when none of them does any more. */
  async session(signal?: AbortSignal): Promise<Session> {
    signal?.throwIfAborted()
    for (const name of this.#names) if (!this.#pinned.has(name)) await this.#context.pins.check(name, this.peerId)
    if (this.#session && !this.#session.closed) {
      await this.#pin()
      return this.#session
    }
    this.#dialling ??= this.#begin()
    const dialling = this.#dialling
    dialling.waiting++
    try {
      return await raced(dialling.promise, signal)
    } finally {
      dialling.waiting--
      if (dialling.waiting === 0 && this.#dialling === dialling) dialling.abort.abort()
    }
  }

  #begin() {
    const abort = new AbortController()
    this.#become('connecting')
    const promise = this.#connect(abort.signal).then(
      session => {
        this.#dialling = undefined
        return session
      },
      (error: unknown) => {
        this.#dialling = undefined
        this.#become(this.#lost ? 'away' : 'idle', error as Error)
        throw error
      }
    )
    promise.catch(() => undefined)
    return { promise, abort, waiting: 0 }
  }

  async #connect(signal: AbortSignal): Promise<Session> {
    const login = this.logins.kept()
    login.catch(() => undefined)
    let session: Session
    try {
      session = await this.#dialAll(signal)
    } catch (error) {
      if (!(error instanceof NetworkError || error instanceof DeadlineError || error instanceof IdentityError)) throw error
      const found = await this.#context.findAddresses(this.peerId, signal)
      if (!this.#learnAddresses(found)) throw error
      session = await this.#dialAll(signal)
    }
    try {
      await this.logins.resume(session, await login)
      if (this.#links.size > 0) await this.#openLinks(session)
      session.answered()
      this.#session = session
      session.onMove(() => this.#went(session))
      this.#went(session)
      await this.#pin()
    } catch (error) {
      session.close()
      throw error
    }
    session.onClose(error => {
      if (this.#session !== session) return
      this.#session = undefined
      this.#lost = true
      this.#become('away', error)
    })
    const resumed = this.#lost
    this.#lost = false
    this.#become('connected')
    if (resumed) this.#news.tell({ type: 'resumed' })
    return session
  }

  #went(session: Session): void {
    if (this.#session !== session) return
    this.#path = session.path
    this.#news.tell({ type: 'path', path: session.path })
  }

  /**
   * Dial each address by itself; the first that is proved wins. A connection with several pairs of addresses that work
   * moves from one to another, which the node cannot follow before both have shown who they are.
   */
  async #dialAll(signal: AbortSignal): Promise<Session> {
    if (this.#addresses.length === 0) throw new UnreachableError(`No address of ${this.label} is known.`)
    const signer = await this.#context.identity.signer()
    const won = new AbortController()
    const either = AbortSignal.any([signal, won.signal])
    const others = this.#addresses
    const delays = delaysOf(others)
    const soonest = others.map((address, i) => ({ address, delay: delays[i]! })).sort((a, b) => a.delay - b.delay)
    const dials = soonest.slice(0, MOST_DIALS).map(async ({ address, delay }) => {
      if (delay > 0) await sleep(delay, either)
      return dial(address, this.peerId, signer, { timeout: DIAL_MS, signal: either, others })
    })
    dials.push(this.#dialByTurn(dials, signer, either))
    try {
      const session = await Promise.any(dials)
      for (const each of dials) void each.then(late => late !== session && late.close(), () => undefined)
      return session
    } catch (error) {
      throw error instanceof AggregateError ? mostTelling(error.errors) : error
    } finally {
      won.abort()
    }
  }

  /**
   * Dial over a TURN server, where a registry names one, once the other ways have had their time. It learns no address
   * that the registry does not tell everybody; those at relays stand last there, and others are of no use to most.
   */
  async #dialByTurn(dials: readonly Promise<Session>[], me: Signer, signal: AbortSignal): Promise<Session> {
    await Promise.race([sleep(TURN_AFTER, signal), Promise.allSettled(dials)])
    signal.throwIfAborted()
    const soon = AbortSignal.any([signal, AbortSignal.timeout(TURN_FIND)])
    const offers = await gather(this.#context.findTurn(this.peerId, soon), soon)
    signal.throwIfAborted()
    const ways = inTurn(offers.map(({ turn, addrs }) => this.#addressesOf(addrs).map(address => ({ turn, address }))), MOST_TURNED)
    if (ways.length === 0) throw new UnreachableError('No registry names a TURN server for this node.')
    const turned = ways.map(({ turn, address }) => dial(address, this.peerId, me, { timeout: DIAL_MS, signal, turn }))
    const session = await Promise.any(turned)
    for (const each of turned) void each.then(late => late !== session && late.close(), () => undefined)
    return session
  }

  #addressesOf(texts: readonly string[]): Multiaddr[] {
    const read = texts.flatMap(text => {
      try {
        const address = parseMultiaddr(text)
        return address.peerId === this.peerId && !isLocal(address) ? [address] : []
      } catch {
        return []
      }
    })
    return read.reverse()
  }

  async #pin(): Promise<void> {
    for (const name of this.#names) {
      if (this.#pinned.has(name)) continue
      await this.#context.pins.pin(name, this.peerId)
      this.#pinned.add(name)
    }
  }

  /** Open a link in this session and in each that follows. Returns what the node tells of it. */
  async openLink(fid: string, secret: Bytes, options: CallOptions = {}): Promise<Row> {
    const told = await this.ask('share.open', { secret }, options)
    if (fieldOf(told, 'fid') !== fid) throw new PeerError(`${this.label} opened another run than the link is for`)
    this.#links.set(hex(secret), { fid, secret })
    return told
  }

  async #openLinks(session: Session): Promise<void> {
    await Promise.all(
      [...this.#links.values()].map(async link => {
        try {
          await session.call('share.open', { secret: link.secret }, { timeout: CALL_MS }).done()
        } catch (error) {
          if (error instanceof CallError) link.dead = error
        }
      })
    )
  }

  /** Return why a run that came by a link is not seen any more, where that is why. */
  whyGone(fid: string): CallError | undefined {
    return [...this.#links.values()].find(link => link.fid === fid && link.dead)?.dead
  }

  close(): void {
    this.#dialling?.abort.abort()
    const session = this.#session
    this.#session = undefined
    this.#lost = false
    session?.close()
    this.#become('idle')
  }
}

/** Return which of several failures says most: somebody else answers; then the node's own; a TURN server does not help; then nobody answers. */
export function mostTelling(failures: readonly unknown[]): unknown {
  const errors = failures.flatMap((error): unknown[] => (error instanceof AggregateError ? error.errors : [error]))
  const isLoss = (error: unknown) => error instanceof NetworkError || error instanceof DeadlineError
  return (
    errors.find(error => error instanceof IdentityError) ??
    errors.find(error => !isLoss(error)) ??
    errors.find(error => error instanceof TurnError) ??
    errors.find(error => !(error instanceof NetworkError)) ??
    errors[0]
  )
}

/** Wait for a promise that others wait for, too, until one's own signal. */
function raced<Result>(promise: Promise<Result>, signal: AbortSignal | undefined): Promise<Result> {
  if (!signal) return promise
  return new Promise((resolve, reject) => {
    const aborted = () => reject(abortError(signal))
    signal.addEventListener('abort', aborted)
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', aborted))
  })
}
