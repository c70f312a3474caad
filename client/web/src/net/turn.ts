/** TURN servers as a dial uses them: which of them is used, and why none is. */
import { UnreachableError } from '../core/errors.ts'
import { type Turn, turnHost } from '../core/turn.ts'

/** Milliseconds after the other dials have begun: whoever has UDP has no use for it. */
export const TURN_AFTER = 1000
/** Most addresses of a node that are dialled so: each takes room at the server. */
export const MOST_TURNED = 4
/** By STUN, RFC 8489: the user name or password is wrong. */
const UNAUTHORIZED = 401

/** No TURN server helped; says why. */
export class TurnError extends UnreachableError {
  override name = 'TurnError'
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
    if (errorCode === UNAUTHORIZED)
      this.#refused = new TurnError(
        `The TURN server ${host} refuses what the registry gave for it: the two do not have the same secret (turn_secret), or their clocks differ.`
      )
    else this.#refused ??= new TurnError(`The TURN server ${host} does not help: ${errorText || 'it does not answer'} (${errorCode}).`)
  }

  readonly #gathered = ({ candidate }: RTCPeerConnectionIceEvent) => {
    if (candidate?.candidate) this.#found = true
    else if (candidate === null && !this.#found) this.#stop(this.#refused ?? new TurnError('No TURN server gives this browser a place.'))
  }

  close(): void {
    this.#connection.removeEventListener('icecandidateerror', this.#failed)
    this.#connection.removeEventListener('icecandidate', this.#gathered)
  }
}
