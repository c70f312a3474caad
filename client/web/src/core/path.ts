/** Ways to a node: how relays call it, which address is dialled when, and what the node says of the way that packets take. */
import { sha256 } from '@noble/hashes/sha2.js'
import { base64url } from './bytes.ts'
import { PeerError } from './errors.ts'
import { MACHINE, type Multiaddr, parseHost, reachOf } from './multiaddr.ts'
import { parsePeerId } from './peerid.ts'
import { type Value, fieldOf, isRow } from './value.ts'

/** How packets go: within a network, through routers, through one that the node has opened, or over a relay. */
export type Route = 'lan' | 'direct' | 'punched' | 'relay'

export const PATH_PROTOCOL = '/kodo/path/1'
/** Milliseconds between the dials of two addresses of one port. */
const STAGGER_MS = 100
const ROUTES: readonly Value[] = ['lan', 'direct', 'punched', 'relay'] satisfies Route[]
/** Below are ports of system services. */
const FIRST_PORT = 1024

/** Return the name by which a relay knows a node: 120 bits of its peer id's SHA-256, in ICE characters. */
export function tagOf(peerId: string): string {
  const tag = base64url(sha256(parsePeerId(peerId)).slice(0, 15))
  return tag.replaceAll('-', '+').replaceAll('_', '/')
}

/**
 * Return how many milliseconds after the first each address is dialled: one shortly after the other (RFC 8305).
 * Those of one port are one socket in several networks. What has another port is another way, as a relay is: it does not wait.
 */
export function delaysOf(addresses: readonly Pick<Multiaddr, 'port'>[]): number[] {
  const seen = new Map<number, number>()
  return addresses.map(({ port }) => {
    const before = seen.get(port) ?? 0
    seen.set(port, before + 1)
    return before * STAGGER_MS
  })
}

/** An address and a port, without saying who is there. */
export type Place = Pick<Multiaddr, 'family' | 'host' | 'port'>

/** The way of a session as the node sees it. */
export interface Path {
  route: Route
  /** The relay that packets go over. */
  relay?: Place
  /** Where the node is itself, and lets this browser in. */
  own?: Place
  /** The host of the TURN server that packets go over before that. */
  turn?: string
}

function readPlace(value: Value | undefined): Place | undefined {
  if (value === undefined) return undefined
  const [host, port] = Array.isArray(value) ? value : []
  if (typeof host !== 'string' || typeof port !== 'number' || !Number.isInteger(port) || port < 1 || port > 65535)
    throw new PeerError('the node says a place that is none')
  return { ...parseHost(host), port }
}

/** Whether a browser may send where a node says that it is: to no service, and to no network that the relay is not in. */
const mayBeSentTo = (own: Place, relay: Place): boolean => {
  const reach = reachOf(own)
  return own.port >= FIRST_PORT && reach !== MACHINE && reach <= reachOf(relay)
}

/** Read the answer of a node. @throws PeerError: it is malformed. */
export function readPath(value: Value): Path {
  const route = isRow(value) ? fieldOf(value, 'route') : undefined
  if (!isRow(value) || route === undefined || !ROUTES.includes(route)) throw new PeerError('the node says no way that is known')
  const [relay, own] = [readPlace(fieldOf(value, 'relay')), readPlace(fieldOf(value, 'own'))]
  return { route: route as Route, ...(relay && { relay }), ...(relay && own && mayBeSentTo(own, relay) && { own }) }
}
