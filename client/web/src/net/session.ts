/** One proved connection to a node: its streams, and whether it lives. */
import { Dialing } from '../core/negotiate.ts'
import { CALL_PROTOCOL, encodeFrame } from '../core/callframe.ts'
import { BrokenError, CapacityError, KodoError } from '../core/errors.ts'
import { concat } from '../core/bytes.ts'
import type { Path, Place } from '../core/path.ts'
import type { Unsubscribe } from './api.ts'
import { Call, type CallSettings } from './calls.ts'
import { Stream } from './stream.ts'
import { Upgrade } from './upgrade.ts'

const PING_PROTOCOL = '/ipfs/ping/1.0.0'
/** While calls wait and nothing comes, the node is asked so often whether it lives; and how long it may take, ms. */
const PROBE_EVERY = 10_000
const PROBE_MS = 4000
/** As many as a node takes. */
const MAX_STREAMS = 64
/** How long a connection that the browser calls disconnected is given to come back, ms. */
const DISCONNECTED_FOR = 3000

export class Session {
  readonly #connection: RTCPeerConnection
  readonly #listeners = new Set<(error: KodoError) => void>()
  readonly #movers = new Set<() => void>()
  readonly #upgrade: Upgrade | undefined
  #path: Path
  #streams = 0
  #error: KodoError | undefined
  #timer: ReturnType<typeof setTimeout> | undefined
  readonly #watch: ReturnType<typeof setInterval>
  #heard = true
  #probing = false

  constructor(
    connection: RTCPeerConnection,
    /** The peer id that the node proved. */
    readonly peerId: string,
    /** The way that packets take: as the address lets guess it, until the node has said it. */
    path: Path,
    /** Where the node is, to move to a better way; without it the session stays on this one. */
    places?: { dialled: Place; others: readonly Place[] }
  ) {
    this.#connection = connection
    this.#path = path
    const moved = (to: Path) => {
      this.#path = to
      for (const listener of this.#movers) listener()
    }
    this.#upgrade = places && new Upgrade(connection, places.dialled, places.others, () => this.#open(), moved)
    connection.addEventListener('connectionstatechange', this.#changed)
    // A node that ends says so; the browser tells it here at once, and of the connection only much later.
    connection.sctp?.addEventListener('statechange', this.#changed)
    addEventListener('online', this.#online)
    document.addEventListener('visibilitychange', this.#seen)
    this.#watch = setInterval(() => {
      if (this.#streams > 0 && !this.#heard) this.#probe()
      this.#heard = false
    }, PROBE_EVERY)
    this.#changed()
  }

  get closed(): boolean {
    return this.#error !== undefined
  }

  /** The way that packets take now. */
  get path(): Path {
    return this.#path
  }

  /** Call back whenever that is another one. */
  onMove(listener: () => void): void {
    this.#movers.add(listener)
  }

  /** Note that a call was answered: after a login the node may say where it is. */
  answered(): void {
    if (!this.#error) this.#upgrade?.answered()
  }

  /** Whether the browser hears nothing from the node just now. */
  get silent(): boolean {
    return this.#connection.connectionState === 'disconnected'
  }

  readonly #changed = () => {
    const state = this.#connection.connectionState
    clearTimeout(this.#timer)
    const ended = state === 'failed' || state === 'closed' || this.#connection.sctp?.state === 'closed'
    if (ended) this.close(new BrokenError('The connection to the node broke.'))
    else if (state === 'disconnected') {
      this.#upgrade?.retry()
      this.#timer = setTimeout(() => this.close(new BrokenError('The node does not answer any more.')), DISCONNECTED_FOR)
    }
  }

  /** A network came back: a connection that is silent was of the old one. */
  readonly #online = () => {
    if (this.silent) this.close(new BrokenError('The network changed.'))
    else this.#probe()
  }

  /** A page that is looked at again may have slept for hours. */
  readonly #seen = () => {
    if (document.visibilityState === 'visible' && this.#streams > 0) this.#probe()
  }

  /** Ask the node whether it lives; a session that gives no answer is over. */
  #probe(): void {
    if (this.#error || this.#probing || this.#streams >= MAX_STREAMS) return
    this.#probing = true
    let stream: Stream
    try {
      stream = this.#open()
    } catch {
      return
    }
    const gone = setTimeout(() => this.close(new BrokenError('The node does not answer any more.')), PROBE_MS)
    const settle = () => {
      clearTimeout(gone)
      this.#probing = false
      stream.reset()
    }
    const dialing = new Dialing(PING_PROTOCOL)
    stream.handle({ onData: settle, onEnd: settle })
    void stream.write(concat(dialing.hello(), crypto.getRandomValues(new Uint8Array(32)))).catch(() => undefined)
  }

  #open(): Stream {
    let channel: RTCDataChannel
    try {
      channel = this.#connection.createDataChannel('')
    } catch {
      // The browser ended the connection, and its event is on the way.
      this.close(new BrokenError('The connection to the node broke.'))
      throw new BrokenError('The connection to the node broke.')
    }
    this.#streams++
    channel.addEventListener('close', () => this.#streams--)
    channel.addEventListener('message', () => {
      this.#heard = true
    })
    return new Stream(channel)
  }

  /** Call back once, when the session ends. */
  onClose(listener: (error: KodoError) => void): Unsubscribe {
    if (this.#error) listener(this.#error)
    else this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Begin a call. @throws BrokenError: the session has ended. CapacityError: too many calls, or too large a one. */
  call(op: string, args: object, settings: CallSettings = {}): Call {
    if (this.#error) throw new BrokenError(this.#error.message)
    if (this.#streams >= MAX_STREAMS) throw new CapacityError(`More than ${MAX_STREAMS} calls to one node at once.`)
    const dialing = new Dialing(CALL_PROTOCOL)
    const first = concat(dialing.hello(), encodeFrame({ op, args }))
    return new Call(this.#open(), dialing, first, op, settings)
  }

  close(error: KodoError = new BrokenError('The session was closed.')): void {
    if (this.#error) return
    this.#error = error
    clearTimeout(this.#timer)
    clearInterval(this.#watch)
    this.#upgrade?.close()
    removeEventListener('online', this.#online)
    document.removeEventListener('visibilitychange', this.#seen)
    this.#connection.sctp?.removeEventListener('statechange', this.#changed)
    this.#connection.removeEventListener('connectionstatechange', this.#changed)
    this.#connection.close()
    for (const listener of this.#listeners) listener(error)
    this.#listeners.clear()
    this.#movers.clear()
  }
}
