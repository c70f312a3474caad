/**
 * TURN servers, by which a browser reaches a node's relay where its network lets no UDP out. Registries name them, and
 * nobody has checked what they name: a list is short, and leads to no place that only this browser's network has.
 */
import { PeerError } from './errors.ts'
import { ANYWHERE, MACHINE, NETWORK, type Reach, parseHost, reachOf } from './multiaddr.ts'
import { type Row, fieldOf, numberOf, textOf } from './value.ts'

/** What a browser needs to use some servers, as an `RTCIceServer` has it, and until when that holds: ms UTC, by the registry's clock. */
export interface Turn {
  urls: string[]
  username: string
  credential: string
  expiresAt: number
}

/** What a registry offers to reach a node: servers, and where it says that the node is. */
export interface TurnOffer {
  turn: Turn
  addrs: readonly string[]
}

const MOST_URLS = 4
const MAX_CHARACTERS = 256
const MAX_SECRET = 512
/** RFC 7065. */
const URL_FORM = /^(turns?):([A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\])(?::([1-9]\d{0,4}))?(?:\?transport=(?:udp|tcp))?$/
/** As Chromium has it: below 1024 are other services, but at these TURN servers are in use. */
const LOW_PORTS: readonly number[] = [80, 443]

/** Names that a network gives its own machines: without a dot, or below what the internet does not have. */
const OWN_NAMES = /^[^.]*\.?$|\.(local|localdomain|lan|home|home\.arpa|internal|intranet|private|corp)\.?$/i

/** Return from where a host may be named. What a browser may read as an address in another spelling is on this machine. */
function placeOf(host: string): Reach {
  const text = host.replace(/^\[|\]$/g, '')
  if (!text.includes(':') && !/^(0x[0-9a-f]*|\d+)\.?$/i.test(/[^.]*\.?$/.exec(text)?.[0] ?? '')) {
    if (/^(.*\.)?localhost\.?$/i.test(text)) return MACHINE
    return OWN_NAMES.test(text) ? NETWORK : ANYWHERE
  }
  try {
    return reachOf(parseHost(text))
  } catch {
    return MACHINE
  }
}

/** Return the host of a TURN server's URL; undefined where it is no such URL, or its port belongs to other services. */
export function turnHost(url: string): string | undefined {
  const found = url.length <= MAX_CHARACTERS ? URL_FORM.exec(url) : null
  if (!found) return undefined
  const [, scheme, host, digits] = found as unknown as [string, string, string, string | undefined]
  const port = Number(digits ?? (scheme === 'turns' ? 5349 : 3478))
  return (port >= 1024 && port <= 65535) || LOW_PORTS.includes(port) ? host : undefined
}

/**
 * Read what a registry says of TURN servers. Of its list what may be used is kept: the first four, none of them nearer
 * to this browser than the registry itself.
 * @throws PeerError: there is none, or it is malformed.
 */
export function readTurn(row: Row, registry: string): Turn {
  const most = placeOf(new URL(registry).hostname)
  const listed = fieldOf(row, 'urls')
  const urls = (Array.isArray(listed) ? listed : []).slice(0, MOST_URLS).filter((url): url is string => {
    const host = typeof url === 'string' ? turnHost(url) : undefined
    return host !== undefined && placeOf(host) <= most
  })
  const [username, credential] = [textOf(row, 'username'), textOf(row, 'credential')]
  const isBounded = [username, credential].every(text => text.length > 0 && text.length <= MAX_SECRET)
  if (urls.length === 0 || !isBounded) throw new PeerError('The registry names no TURN server that may be used.')
  return { urls, username, credential, expiresAt: numberOf(row, 'expires_at') ?? 0 }
}
