/** Where a node is reached: `/ip4/192.0.2.7/udp/4711/webrtc-direct/certhash/uEi…/p2p/12D3Koo…`. As text and as bytes. */
import { base58, base64url, concat, equal, fromBase64url, readUtf8, readVarint, utf8, varint } from './bytes.ts'
import { PeerError } from './errors.ts'
import { keyOfPeerIdBytes, parsePeerId } from './peerid.ts'
import type { Bytes } from './value.ts'

export type Family = 'ip4' | 'ip6' | 'dns4'

export interface Multiaddr {
  family: Family
  /** Canonical: dotted, RFC 5952, or lower case. */
  host: string
  port: number
  /** SHA-256 of the DTLS certificate that is shown there, 32 bytes. */
  certhash: Bytes
  /** Who should be there, where it is said. */
  peerId: string | undefined
}

const MAX_CHARACTERS = 512
const SHA256_HEAD = Uint8Array.of(0x12, 32)
const IP4 = 4
const IP6 = 41
const DNS4 = 54
const UDP = 273
const WEBRTC_DIRECT = 280
const CERTHASH = 466
const P2P = 421

const wrong = (what: string) => new PeerError(`that is not an address of a node: ${what}`)

function ip4Bytes(text: string): Bytes {
  const parts = text.split('.')
  if (parts.length !== 4 || !parts.every(part => /^(0|[1-9]\d{0,2})$/.test(part) && Number(part) < 256))
    throw wrong('its host is no IPv4 address')
  return Uint8Array.from(parts, Number)
}

function ip6Bytes(text: string): Bytes {
  const refuse = () => wrong('its host is no IPv6 address')
  let rest = text
  const dotted = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(text)
  if (dotted) {
    const [a, b, c, d] = ip4Bytes(dotted[2]!) as unknown as [number, number, number, number]
    rest = `${dotted[1]!}${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`
  }
  const halves = rest.split('::')
  if (halves.length > 2) throw refuse()
  const groups = halves.map(half => (half === '' ? [] : half.split(':')))
  const given = groups.reduce((sum, half) => sum + half.length, 0)
  if (halves.length === 1 ? given !== 8 : given > 7) throw refuse()
  const all = halves.length === 1 ? groups[0]! : [...groups[0]!, ...new Array<string>(8 - given).fill('0'), ...groups[1]!]
  if (!all.every(group => /^[0-9a-f]{1,4}$/i.test(group))) throw refuse()
  return Uint8Array.from(all.flatMap(group => [parseInt(group, 16) >> 8, parseInt(group, 16) & 255]))
}

/** RFC 5952: the longest run of zero groups is left out, the first of equal ones. */
function ip6Text(bytes: Uint8Array): string {
  const groups = Array.from({ length: 8 }, (_, i) => (bytes[2 * i]! << 8) | bytes[2 * i + 1]!)
  let best = { from: 0, length: 1 }
  for (let from = 0; from < 8; from++) {
    let length = 0
    while (from + length < 8 && groups[from + length] === 0) length++
    if (length > best.length) best = { from, length }
  }
  const written = groups.map(group => group.toString(16))
  if (best.length < 2) return written.join(':')
  return `${written.slice(0, best.from).join(':')}::${written.slice(best.from + best.length).join(':')}`
}

function dnsName(text: string): string {
  const labels = text.split('.')
  if (text.length > 253 || !labels.every(label => /^\w([\w-]{0,61}\w)?$/.test(label))) throw wrong('its host is no name')
  if (/^\d+$/.test(labels.at(-1)!)) throw wrong('its host looks like an address and is none')
  return text.toLowerCase()
}

function canonicalHost(family: Family, text: string): string {
  if (family === 'ip4') return Array.from(ip4Bytes(text)).join('.')
  return family === 'ip6' ? ip6Text(ip6Bytes(text)) : dnsName(text)
}

/** Read an IP address. @throws PeerError: it is not one. */
export function parseHost(text: string): Pick<Multiaddr, 'family' | 'host'> {
  const family = text.includes(':') ? 'ip6' : 'ip4'
  return { family, host: canonicalHost(family, text) }
}

function digestOf(multihash: Bytes): Bytes {
  if (multihash.length !== 34 || !equal(multihash.subarray(0, 2), SHA256_HEAD)) throw wrong('its certhash is no SHA-256')
  return multihash.slice(2)
}

/** Read an address. @throws PeerError that says which part is wrong. */
export function parseMultiaddr(text: string): Multiaddr {
  if (text.length > MAX_CHARACTERS) throw wrong('it is too long')
  const shape = /^\/(ip4|ip6|dns4)\/([^/]+)\/udp\/([^/]+)\/webrtc-direct\/certhash\/u([^/]*)(?:\/p2p\/([^/]+))?$/.exec(text)
  if (!shape) throw wrong('/ip4|ip6|dns4/HOST/udp/PORT/webrtc-direct/certhash/HASH[/p2p/PEER] is one')
  const [, family, host, port, hash, peer] = shape as unknown as [string, Family, string, string, string, string | undefined]
  if (!/^[1-9]\d{0,4}$/.test(port) || Number(port) > 65535) throw wrong('its port is none')
  if (peer !== undefined) parsePeerId(peer)
  return { family, host: canonicalHost(family, host), port: Number(port), certhash: digestOf(fromBase64url(hash)), peerId: peer }
}

export function formatMultiaddr(address: Multiaddr): string {
  const hash = base64url(concat(SHA256_HEAD, address.certhash))
  const tail = address.peerId === undefined ? '' : `/p2p/${address.peerId}`
  return `/${address.family}/${address.host}/udp/${address.port}/webrtc-direct/certhash/u${hash}${tail}`
}

const prefixed = (value: Uint8Array): Bytes => concat(varint(value.length), value)

/** Write the binary form. */
export function multiaddrBytes(address: Multiaddr): Bytes {
  const { family, host, port } = address
  return concat(
    family === 'dns4' ? concat(varint(DNS4), prefixed(utf8(host))) : family === 'ip4' ? concat(varint(IP4), ip4Bytes(host)) : concat(varint(IP6), ip6Bytes(host)),
    varint(UDP),
    Uint8Array.of(port >> 8, port & 255),
    varint(WEBRTC_DIRECT),
    varint(CERTHASH),
    prefixed(concat(SHA256_HEAD, address.certhash)),
    address.peerId === undefined ? new Uint8Array(0) : concat(varint(P2P), prefixed(parsePeerId(address.peerId)))
  )
}

/** Read the binary form. @throws PeerError: it is malformed, or not of the one shape. */
export function readMultiaddr(bytes: Uint8Array): Multiaddr {
  if (bytes.length > MAX_CHARACTERS) throw wrong('it is too long')
  let at = 0
  const number = (): number => {
    const read = readVarint(bytes, at)
    if (!read) throw wrong('it is cut off')
    at = read.end
    return read.value
  }
  const take = (count: number): Bytes => {
    if (count > bytes.length - at) throw wrong('it is cut off')
    at += count
    return bytes.slice(at - count, at)
  }
  const expect = (code: number): void => {
    if (number() !== code) throw wrong('its parts are others')
  }
  const code = number()
  let family: Family
  let host: string
  if (code === IP4) [family, host] = ['ip4', Array.from(take(4)).join('.')]
  else if (code === IP6) [family, host] = ['ip6', ip6Text(take(16))]
  else if (code === DNS4) [family, host] = ['dns4', dnsName(readUtf8(take(number())))]
  else throw wrong('its host is of an unknown kind')
  expect(UDP)
  const [high, low] = take(2) as unknown as [number, number]
  const port = (high << 8) | low
  if (port === 0) throw wrong('its port is none')
  expect(WEBRTC_DIRECT)
  expect(CERTHASH)
  const certhash = digestOf(take(number()))
  let peerId: string | undefined
  if (at < bytes.length) {
    expect(P2P)
    const peer = take(number())
    keyOfPeerIdBytes(peer)
    peerId = base58(peer)
    if (at < bytes.length) throw wrong('it goes on after its peer id')
  }
  return { family, host, port, certhash, peerId }
}

/** Return whether an address is of a local network: loopback, private, link-local or unique local. */
export function isLocal(address: Pick<Multiaddr, 'family' | 'host'>): boolean {
  if (address.family === 'dns4') return address.host === 'localhost'
  if (address.family === 'ip4') {
    const [a, b] = ip4Bytes(address.host) as unknown as [number, number]
    return a === 10 || a === 127 || (a === 172 && b >= 16 && b < 32) || (a === 192 && b === 168) || (a === 169 && b === 254)
  }
  const bytes = ip6Bytes(address.host)
  const loopback = bytes.every((byte, i) => byte === (i === 15 ? 1 : 0))
  return loopback || (bytes[0]! & 0xfe) === 0xfc || (bytes[0] === 0xfe && (bytes[1]! & 0xc0) === 0x80)
}

/** From where an address may be named: by everybody, by whom one provider serves too, within a local network, on this machine alone. */
export const [ANYWHERE, PROVIDER, NETWORK, MACHINE] = [0, 1, 2, 3] as const
export type Reach = typeof ANYWHERE | typeof PROVIDER | typeof NETWORK | typeof MACHINE

/** Loopback, link-local and multicast addresses, and those of no machine; IPv4 addresses within IPv6 ones. */
const NOBODYS = /^(0|127|169\.254|22[4-9]|2[3-5]\d)\.|^(::|fe[89ab]|ff)/
/** Shared by the customers of a provider, RFC 6598. */
const SHARED = /^100\.(6[4-9]|[7-9]\d|1[01]\d|12[0-7])\./
/** Of protocols and of tests of networks; NAT64, 6to4 and site-local: a network decides what they lead to. */
const WITHIN = /^(192\.0\.0|198\.1[89])\.|^(64:ff9b|2002|fe[cdef][0-9a-f]):/

/** Return from where an IP address may be named. */
export function reachOf(address: Pick<Multiaddr, 'family' | 'host'>): Reach {
  if (NOBODYS.test(address.host)) return MACHINE
  if (isLocal(address) || WITHIN.test(address.host)) return NETWORK
  return SHARED.test(address.host) ? PROVIDER : ANYWHERE
}
