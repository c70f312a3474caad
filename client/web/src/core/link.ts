/**
 * A share's link: a capability in one line of text, as `kodo.protocol.link` writes it. `#get=` is for a run, `#open=`
 * for an invitation; both are read the same way.
 *
 *     https://HOST/#get=TOKEN     https://HOST/#open=TOKEN     kodo:TOKEN
 *     TOKEN = base64url(msgpack [version, peer id, fid, secret, [address hint …], registry hint | nil])
 */
import { base58, base64url, fromBase64url } from './bytes.ts'
import { UsageError } from './errors.ts'
import { decode, encode } from './msgpack.ts'
import { type Multiaddr, formatMultiaddr, multiaddrBytes, readMultiaddr } from './multiaddr.ts'
import { keyOfPeerIdBytes, parsePeerId } from './peerid.ts'
import type { Bytes, Value } from './value.ts'

export interface Link {
  /** The node; whoever else answers is refused. */
  peerId: string
  fid: string
  /** 16 bytes; who knows them may read the run. Never show them. */
  secret: Bytes
  /** Where the node was when the link was made, as texts. */
  addrs: string[]
  /** URL of a registry that may know where it is now; ask it only where the person wants that. */
  registry: string | undefined
}

const VERSION = 1
const SECRET_BYTES = 16
const MAX_HINTS = 8
const MAX_TOKEN_CHARACTERS = 4096
const MAX_LINK_CHARACTERS = MAX_TOKEN_CHARACTERS + 512
const MAX_REGISTRY_CHARACTERS = 256
const ID = /^[0-7][0-9abcdefghjkmnpqrstvwxyz]{25}$/

const damaged = () => new UsageError('The link is damaged: was it copied whole?')

/** Return whether a text is a fid, lid or sid. */
export const isId = (text: unknown): text is string => typeof text === 'string' && ID.test(text)

/** Return the URL of a registry that a link may name, undefined where the text is none. */
function registryUrl(text: string): string | undefined {
  if (text.length > MAX_REGISTRY_CHARACTERS || !/^[!-~]+$/.test(text) || /[?#]/.test(text)) return undefined
  // The URL parser mends much; what it would mend is none.
  if (!/^https?:\/\/[^/@\\]+(\/|$)/.test(text) || !URL.canParse(text)) return undefined
  return /:0+(\/|$)/.test(text.slice(8)) ? undefined : text
}

function pack(link: Link, hints: readonly Multiaddr[]): Bytes {
  const bare = hints.map(hint => multiaddrBytes({ ...hint, peerId: undefined }))
  return encode([VERSION, parsePeerId(link.peerId), link.fid, link.secret, bare, link.registry ?? null])
}

/** Read a token. @throws UsageError that never repeats any of it. */
export function decodeToken(token: string): Link {
  if (token === '') throw new UsageError('The link is empty: was it copied whole?')
  if (token.length > MAX_TOKEN_CHARACTERS) throw new UsageError('The link is too long.')
  let read: Value
  try {
    read = decode(fromBase64url(token))
  } catch {
    throw damaged()
  }
  if (!Array.isArray(read)) throw damaged()
  const [version, peer, fid, secret, hints, registry] = read
  if (typeof version === 'number' && Number.isInteger(version) && version > VERSION)
    throw new UsageError('The link was made by a newer kodo: update this one.')
  if (
    read.length !== 6 ||
    version !== VERSION ||
    !(peer instanceof Uint8Array) ||
    !isId(fid) ||
    !(secret instanceof Uint8Array) ||
    secret.length !== SECRET_BYTES ||
    !Array.isArray(hints) ||
    hints.length > MAX_HINTS ||
    !(registry === null || (typeof registry === 'string' && registryUrl(registry) !== undefined))
  )
    throw damaged()
  try {
    keyOfPeerIdBytes(peer)
    const peerId = base58(peer)
    const addresses = hints.map(hint => {
      if (!(hint instanceof Uint8Array)) throw damaged()
      return { ...readMultiaddr(hint), peerId }
    })
    const link = { peerId, fid, secret: secret.slice(), addrs: addresses.map(formatMultiaddr), registry: registry ?? undefined }
    if (base64url(pack(link, addresses)) !== token) throw damaged()
    return link
  } catch {
    throw damaged()
  }
}

/** Read a link in one of its forms, or a bare token. @throws UsageError that never repeats the token. */
export function parseLink(text: string): Link {
  const trimmed = text.trim()
  if (trimmed.length > MAX_LINK_CHARACTERS) throw new UsageError('The link is too long.')
  if (/^kodo:/i.test(trimmed)) return decodeToken(trimmed.slice(5))
  if (/^https?:\/\//i.test(trimmed)) {
    const token = /^[^#]*#(?:get|open)=(.*)$/s.exec(trimmed)?.[1]
    if (token === undefined) throw new UsageError('The link has no #get=TOKEN or #open=TOKEN at its end: was it copied whole?')
    return decodeToken(token)
  }
  if (/[:/]/.test(trimmed)) throw new UsageError('A link is https://HOST/#get=TOKEN or kodo:TOKEN.')
  return decodeToken(trimmed)
}
