/**
 * How a session that began over a relay leaves it. The node is asked which way packets take; if that is over a relay, the
 * browser gets what else is known of the node as candidates of a better priority, and moves by itself to one that answers.
 * Then the node is asked again: what is sent makes it follow at once.
 */
import { type KodoError, PeerError } from '../core/errors.ts'
import { PATH_PROTOCOL, type Path, type Place, readPath } from '../core/path.ts'
import { PrefixedFrames } from '../core/framing.ts'
import { decode } from '../core/msgpack.ts'
import { Dialing } from '../core/negotiate.ts'
import type { Stream } from './stream.ts'

/** The priority of host candidates of the first component (RFC 8445, section 5.1.2.1). */
const HOST_PRIORITY = 2_130_706_431
/** That of relayed ones: whatever else answers is better. */
const FIRST_PRIORITY = 16_777_215
const MAX_ANSWER_BYTES = 1024
/** Most candidates that a connection gets. */
const MOST_CANDIDATES = 16
/** How often a node is asked that does not say where it is: it may once the session has logged in. */
const MOST_QUESTIONS = 8
/** After how many milliseconds over a relay the node is asked again, each time after twice as many: it opens its NAT further. */
const AGAIN_MS = 2000
const MOST_AGAIN_MS = 32_000

export const hostOf = ({ family, host }: Place): string => (family === 'dns4' && host === 'localhost' ? '127.0.0.1' : host)

/** Write a candidate of a node: number 0 is the address that is dialled, of the others the first is the best. */
export const writeCandidate = (place: Place, number: number): string =>
  `candidate:${number + 1} 1 UDP ${number === 0 ? FIRST_PRIORITY : HOST_PRIORITY - number} ${hostOf(place)} ${place.port} typ host`

/** Ask a node which way packets take. @throws what breaks the stream; PeerError: it knows no such question. */
function askPath(stream: Stream): Promise<Path> {
  const dialing = new Dialing(PATH_PROTOCOL)
  const frames = new PrefixedFrames(MAX_ANSWER_BYTES, 'path')
  return new Promise((resolve, reject) => {
    stream.handle({
      onData: bytes => {
        try {
          for (const frame of frames.feed(dialing.feed(bytes))) resolve(readPath(decode(frame)))
        } catch (error) {
          stream.reset(error as KodoError)
        }
      },
      onEnd: error => reject(error ?? new PeerError('the node says no way'))
    })
    stream.write(dialing.hello()).then(() => stream.closeWrite(), reject)
  })
}

export class Upgrade {
  readonly #connection: RTCPeerConnection
  readonly #open: () => Stream
  readonly #told: (path: Path) => void
  readonly #dialled: Place
  readonly #others: readonly Place[]
  #left = MOST_QUESTIONS
  #asking = false
  #again = false
  #path: Path | undefined
  #wait = AGAIN_MS
  #timer: ReturnType<typeof setTimeout> | undefined
  readonly #ice: Partial<RTCIceTransport> | undefined

  /**
   * @param dialled the address that answered first.
   * @param others where else the node may be.
   * @param open opens a stream to the node.
   * @param told is called whenever the way is another one.
   */
  constructor(connection: RTCPeerConnection, dialled: Place, others: readonly Place[], open: () => Stream, told: (path: Path) => void) {
    this.#connection = connection
    this.#dialled = dialled
    this.#others = others
    this.#open = open
    this.#told = told
    // Not every browser has it, whatever the types say.
    this.#ice = connection.sctp?.transport.iceTransport
    this.#ice?.addEventListener?.('selectedcandidatepairchange', this.#moved)
    void this.#ask()
  }

  readonly #moved = () => void this.#ask()

  /** Something was answered: the node may say now what it did not before. */
  answered(): void {
    if (this.#path?.relay && !this.#path.own && this.#left > 0) {
      this.#left--
      void this.#ask()
    }
  }

  /** The browser hears nothing any more: let it try once more what it tried first, and has given up since. */
  retry(): void {
    this.#give([this.#dialled, ...this.#better()])
  }

  async #ask(): Promise<void> {
    this.#again = this.#asking
    if (this.#asking) return
    this.#asking = true
    try {
      const path = await askPath(this.#open())
      const isNew = path.route !== this.#path?.route || path.relay?.host !== this.#path.relay?.host
      const isPlaceNew = path.own !== undefined && path.own.host !== this.#path?.own?.host
      this.#path = path
      if (path.relay && (isNew || isPlaceNew)) this.#give([undefined, ...this.#better()])
      clearTimeout(this.#timer)
      if (path.relay && path.own && this.#wait <= MOST_AGAIN_MS) {
        this.#timer = setTimeout(() => void this.#ask(), this.#wait)
        this.#wait *= 2
      }
      if (isNew) this.#told(path)
    } catch {
      // An old node knows no such question; a session that broke is dealt with elsewhere.
      return
    } finally {
      this.#asking = false
    }
    if (this.#again) void this.#ask()
  }

  /** Where else the node may be; where it says that it is comes first. */
  #better(): Place[] {
    const own = this.#path?.own
    return [...(own ? [own] : []), ...this.#others].slice(0, MOST_CANDIDATES)
  }

  #give(places: readonly (Place | undefined)[]): void {
    places.forEach((place, number) => {
      // One that the browser does not want, as of a family that it has not, is not tried.
      if (place) this.#connection.addIceCandidate({ candidate: writeCandidate(place, number), sdpMid: '0' }).catch(() => undefined)
    })
  }

  close(): void {
    clearTimeout(this.#timer)
    this.#ice?.removeEventListener?.('selectedcandidatepairchange', this.#moved)
  }
}
