/** TURN servers as a dial uses them: which of them is used, and why none is. */
import { UnreachableError } from '../core/errors.ts'
import { type Turn, turnHost } from '../core/turn.ts'

/** Milliseconds after the other dials have begun: whoever has UDP has no use for it. */
export const TURN_AFTER = 1000
/** Most addresses of a node that are dialled so: each takes room at the server. */
export const MOST_TURNED = 4
/** Milliseconds in which registries have to say what they offer, and those that have not after one that has. */
export const TURN_FIND = 3000
const OTHERS_MS = 300
/** Milliseconds for which an answer is kept at most, whatever the clocks say, and how long it must hold then. */
const KEPT_MS = 540_000
const SPARE_MS = 60_000
/** By STUN, RFC 8489: the user name or password is wrong. */
const UNAUTHORIZED = 401

/** No TURN server helped; says why. */
export class TurnError extends UnreachableError {
  override name = 'TurnError'
}

/** What a server refused; it is not shown again. */
const refused = new WeakSet<Turn>()

/** What a registry says of its TURN servers, asked again when it has nearly expired, or a server refused it. */
export class KeptTurn {
  readonly #ask: (signal: AbortSignal) => Promise<Turn>
  readonly #now: () => number
  #asked: Promise<Turn> | undefined
  #turn: Turn | undefined
  #until = 0

  constructor(ask: (signal: AbortSignal) => Promise<Turn>, now: () => number = Date.now) {
    this.#ask = ask
    this.#now = now
  }

  /** One question serves all who ask meanwhile, so that nobody's end ends it. */
  get(): Promise<Turn> {
    if (this.#turn && (this.#now() >= this.#until || refused.has(this.#turn))) this.#asked = this.#turn = undefined
    this.#asked ??= this.#read()
    return this.#asked
  }

  async #read(): Promise<Turn> {
    const began = this.#now()
    try {
      const turn = await this.#ask(AbortSignal.timeout(TURN_FIND))
      this.#until = Math.min(turn.expiresAt - SPARE_MS, began + KEPT_MS)
      this.#turn = turn
      return turn
    } catch (error) {
      this.#asked = undefined
      throw error
    }
  }
}

/** Return what several say, in their order: all, or what is there shortly after the first has said something, or when the signal is aborted. */
export function gather<Said>(asked: readonly Promise<Said>[], signal: AbortSignal, grace = OTHERS_MS): Promise<Said[]> {
  return new Promise(resolve => {
    const said = new Map<number, Said>()
    let timer: ReturnType<typeof setTimeout> | undefined
    const end = () => {
      clearTimeout(timer)
      signal.removeEventListener('abort', end)
      resolve(asked.flatMap((_, i) => (said.has(i) ? [said.get(i)!] : [])))
    }
    const tell = (i: number, each: Said) => {
      said.set(i, each)
      timer ??= setTimeout(end, grace)
    }
    void Promise.all(asked.map((each, i) => each.then(value => tell(i, value), () => undefined))).then(end)
    signal.addEventListener('abort', end)
    if (signal.aborted) end()
  })
}

/** Return the first of each row, then the second of each, and so on. */
export function inTurn<Item>(rows: readonly (readonly Item[])[], most: number): Item[] {
  const longest = Math.max(0, ...rows.map(row => row.length))
  return Array.from({ length: longest }, (_, i) => rows.flatMap(row => row.slice(i, i + 1))).flat().slice(0, most)
}

export class TurnWatch {
  readonly #connection: RTCPeerConnection
  readonly #turn: Turn
  readonly #stop: (error: Error) => void
  #refused: TurnError | undefined
  #found = false

  /** @param stop ends the dial: no server gives the browser a place. */
  constructor(connection: RTCPeerConnection, turn: Turn, stop: (error: Error) => void) {
    this.#connection = connection
    this.#turn = turn
    this.#stop = stop
    connection.addEventListener('icecandidateerror', this.#failed)
    connection.addEventListener('icecandidate', this.#gathered)
  }

  /** Which server is used, as far as the browser says it. */
  get host(): string {
    const ice = this.#connection.sctp?.transport.iceTransport as Partial<RTCIceTransport> | undefined
    const used = ice?.getSelectedCandidatePair?.()?.local as { url?: string | null } | undefined
    return turnHost(used?.url ?? '') ?? turnHost(this.#turn.urls[0]!) ?? ''
  }

  readonly #failed = ({ errorCode, errorText, url }: RTCPeerConnectionIceErrorEvent) => {
    const host = turnHost(url) ?? url
    if (errorCode === UNAUTHORIZED) {
      refused.add(this.#turn)
      this.#refused = new TurnError(
        `The TURN server ${host} refuses what the registry gave for it: the two do not have the same secret (turn_secret), or their clocks differ.`
      )
    } else this.#refused ??= new TurnError(`The TURN server ${host} does not help: ${errorText || 'it does not answer'} (${errorCode}).`)
  }

  readonly #gathered = ({ candidate }: RTCPeerConnectionIceEvent) => {
    if (candidate?.candidate) this.#found = true
    else if (candidate === null && !this.#found) this.#stop(this.#refused ?? new TurnError('No TURN server accepted this browser.'))
  }

  close(): void {
    this.#connection.removeEventListener('icecandidateerror', this.#failed)
    this.#connection.removeEventListener('icecandidate', this.#gathered)
  }
}
