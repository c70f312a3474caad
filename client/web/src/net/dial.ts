/**
 * WebRTC Direct, version 2 (libp2p/specs): a node is dialled by its addresses alone, and no SDP is munged.
 *
 * The browser's own offer stays as it is. The answer is written here: it says that the node is a lite agent whose ICE
 * username carries this side's password, so the node can answer without having seen the offer, and the name by which
 * relays know the node. `RemoteNode` dials each address by itself; the session then goes on over a better one, if it
 * began over a relay.
 */
import { equal, fromHex } from '../core/bytes.ts'
import { DeadlineError, IdentityError, KodoError, PeerError, UnreachableError, UsageError } from '../core/errors.ts'
import { type Multiaddr, isLocal } from '../core/multiaddr.ts'
import { MAX_NOISE_BYTES, type Signer, prologueOf, respond } from '../core/noise.ts'
import { tagOf } from '../core/path.ts'
import { peerIdOf } from '../core/peerid.ts'
import type { Turn } from '../core/turn.ts'
import type { Bytes } from '../core/value.ts'
import { abortError } from './calls.ts'
import { noiseCrypto } from './crypto.ts'
import { Session } from './session.ts'
import { Stream } from './stream.ts'
import { TurnWatch } from './turn.ts'
import { hostOf, writeCandidate } from './upgrade.ts'


export interface DialOptions {
  /** The other addresses of the node, to which the session moves if this one is a relay's. */
  others?: readonly Multiaddr[]
  /** The servers over which all packets go; without them none is asked for anything. */
  turn?: Turn
  /** Milliseconds. */
  timeout: number
  signal?: AbortSignal | undefined
}

/** Return what of a description is asked for. */
function attribute(sdp: string, pattern: RegExp): string {
  const found = pattern.exec(sdp)?.[1]
  if (found === undefined) throw new UsageError('This browser offers a connection that is not understood.')
  return found
}

/** Write the answer that the node would give. Its address was parsed, so that nothing of it can end a line. */
export function writeAnswer(address: Multiaddr, password: string, peerId: string): string {
  const ufrag = `libp2p+webrtc+v2/${password}/${tagOf(peerId)}`
  const family = address.family === 'ip6' ? 'IP6' : 'IP4'
  // Firefox compares a fingerprint's letters, and has them in upper case.
  const fingerprint = Array.from(address.certhash, byte => byte.toString(16).padStart(2, '0').toUpperCase()).join(':')
  return [
    'v=0',
    `o=- 0 0 IN ${family} ${hostOf(address)}`,
    's=-',
    't=0 0',
    'a=ice-lite',
    `m=application ${address.port} UDP/DTLS/SCTP webrtc-datachannel`,
    `c=IN ${family} ${hostOf(address)}`,
    'a=mid:0',
    'a=ice-options:ice2',
    `a=ice-ufrag:${ufrag}`,
    `a=ice-pwd:${ufrag}`,
    `a=fingerprint:sha-256 ${fingerprint}`,
    'a=setup:passive',
    'a=sctp-port:5000',
    'a=max-message-size:16384',
    `a=${writeCandidate(address, 0)}`,
    'a=end-of-candidates',
    ''
  ].join('\r\n')
}

/** The messages of the handshake, each behind two bytes that say how long it is, on the connection's first channel. */
class HandshakeChannel {
  readonly #stream: Stream
  readonly #messages: Bytes[] = []
  #buffer: number[] = []
  #broken: KodoError | undefined
  #wake: () => void = () => undefined

  constructor(stream: Stream) {
    this.#stream = stream
    stream.handle({
      onData: bytes => this.#take(bytes),
      onEnd: error => {
        this.#broken = error ?? new PeerError('the node ended the handshake')
        this.#wake()
      }
    })
  }

  #take(bytes: Uint8Array): void {
    this.#buffer.push(...bytes)
    if (this.#buffer.length > 2 * MAX_NOISE_BYTES) {
      this.#broken = new PeerError('the handshake is over its bound')
      this.#buffer = []
    }
    while (this.#buffer.length >= 2) {
      const end = 2 + this.#buffer[0]! * 256 + this.#buffer[1]!
      if (this.#buffer.length < end) break
      this.#messages.push(Uint8Array.from(this.#buffer.slice(2, end)))
      this.#buffer = this.#buffer.slice(end)
    }
    this.#wake()
  }

  readonly read = async (): Promise<Bytes> => {
    for (;;) {
      const message = this.#messages.shift()
      if (message) return message
      if (this.#broken) throw this.#broken
      await new Promise<void>(resolve => {
        this.#wake = resolve
      })
    }
  }

  readonly write = (message: Bytes): void => {
    const framed = new Uint8Array(message.length + 2)
    framed[0] = message.length >> 8
    framed[1] = message.length & 255
    framed.set(message, 2)
    void this.#stream.write(framed).catch(() => undefined)
  }
}

/** Return which of the addresses answered. */
async function routeOf(connection: RTCPeerConnection): Promise<'lan' | 'direct'> {
  // Not every browser has it, whatever the types say.
  const ice = connection.sctp?.transport.iceTransport as Partial<RTCIceTransport> | undefined
  let address = ice?.getSelectedCandidatePair?.()?.remote.address ?? undefined
  if (address === undefined) {
    const stats = await connection.getStats()
    for (const each of stats.values() as Iterable<Record<string, unknown>>) {
      if (each['type'] !== 'candidate-pair' || each['state'] !== 'succeeded' || !each['nominated']) continue
      const remote = stats.get(String(each['remoteCandidateId'])) as { address?: string } | undefined
      address = remote?.address
    }
  }
  if (!address) return 'direct'
  try {
    return isLocal({ family: address.includes(':') ? 'ip6' : 'ip4', host: address }) ? 'lan' : 'direct'
  } catch {
    return 'direct'
  }
}

/** Return where else a node is that shows the same certificate. */
const othersOf = (address: Multiaddr, all: readonly Multiaddr[]): Multiaddr[] =>
  all.filter(each => equal(each.certhash, address.certhash) && (each.host !== address.host || each.port !== address.port))

async function handshake(connection: RTCPeerConnection, address: Multiaddr, peerId: string, me: Signer): Promise<Bytes> {
  const channel = connection.createDataChannel('', { negotiated: true, id: 0 })
  const stream = new Stream(channel)
  const messages = new HandshakeChannel(stream)
  await connection.setLocalDescription(await connection.createOffer())
  const sdp = connection.localDescription?.sdp ?? ''
  const password = attribute(sdp, /^a=ice-pwd:(\S+)/m)
  const mine = fromHex(attribute(sdp, /^a=fingerprint:sha-256 (\S+)/im).replaceAll(':', ''))
  await connection.setRemoteDescription({ type: 'answer', sdp: writeAnswer(address, password, peerId) })
  // What arrives before the channel is open here is read all the same: the node speaks first.
  const key = await respond(noiseCrypto, me, prologueOf(mine, address.certhash), messages.read, messages.write)
  stream.closeWrite()
  return key
}

/**
 * Dial a node; its peer id is proved when this returns.
 * @throws UnreachableError, DeadlineError: nobody answers. IdentityError: somebody else does. PeerError: it is no node.
 */
export async function dial(address: Multiaddr, peerId: string, me: Signer, options: DialOptions): Promise<Session> {
  if (typeof RTCPeerConnection === 'undefined') throw new UsageError('This browser has no WebRTC, or it is turned off.')
  options.signal?.throwIfAborted()
  const { turn } = options
  const connection = new RTCPeerConnection(turn ? { iceServers: [turn], iceTransportPolicy: 'relay' } : { iceServers: [] })
  let stop: (error: Error) => void = () => undefined
  const stopped = new Promise<never>((_, reject) => {
    stop = reject
  })
  const watch = turn && new TurnWatch(connection, turn, stop)
  const timer = setTimeout(() => stop(new DeadlineError(`The node did not answer within ${options.timeout / 1000} s.`)), options.timeout)
  const aborted = () => stop(abortError(options.signal))
  options.signal?.addEventListener('abort', aborted)
  connection.onconnectionstatechange = () => {
    const state = connection.connectionState
    if (state === 'failed' || state === 'closed') stop(new UnreachableError('Nobody answers at the addresses of the node.'))
  }
  try {
    const key = await Promise.race([handshake(connection, address, peerId, me), stopped])
    const found = peerIdOf(key)
    if (found !== peerId) throw new IdentityError(`${found} answered where ${peerId} should be.`, peerId, found)
    // A server that may send here alone is told of no other address of the node.
    if (watch) return new Session(connection, found, { route: 'relay', turn: watch.host })
    const route = await Promise.race([routeOf(connection), stopped])
    return new Session(connection, found, { route }, { dialled: address, others: othersOf(address, options.others ?? []) })
  } catch (error) {
    connection.close()
    if (error instanceof KodoError || options.signal?.aborted) throw error
    throw new PeerError(`The node could not be dialled: ${error instanceof Error ? error.message : String(error)}`)
  } finally {
    connection.onconnectionstatechange = null
    watch?.close()
    clearTimeout(timer)
    options.signal?.removeEventListener('abort', aborted)
  }
}
