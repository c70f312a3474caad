/**
 * What a login at an OpenID Connect issuer is made of: code flow with PKCE (RFC 7636), tokens bound to a key by DPoP
 * (RFC 9449). Pure: random values and times are passed in.
 */
import { sha256 } from '@noble/hashes/sha2.js'
import { base64url, fromBase64url, utf8 } from './bytes.ts'
import { PeerError, UsageError } from './errors.ts'
import type { Signer } from './noise.ts'
import { type Bytes, type Row, fieldOf, isRow, numberOf, textOf } from './value.ts'

/** What a node says in `auth.info` that its users log in with. */
export interface Terms {
  issuer: string
  clientId: string
  audience: string
  scope: string
  /** Whether the node takes no token that is not bound to its holder's key. */
  bound: boolean
}

/** What is kept from going to the issuer until coming back from there. */
export interface Begun extends Terms {
  place: string
  state: string
  verifier: string
  redirectUri: string
  /** Where the page was: a fragment. */
  back: string
}

/** What the issuer gave. */
export interface Tokens {
  token: string
  refresh: string | undefined
  /** ms UTC. */
  expiresAt: number
}

const MOST_SECONDS = 366 * 86_400
const DEFAULT_SECONDS = 300

/** Read the terms of a node; undefined where it has none. */
export function termsOf(info: Row): Terms | undefined {
  const terms = {
    issuer: textOf(info, 'issuer'),
    clientId: textOf(info, 'client_id'),
    audience: textOf(info, 'audience'),
    scope: textOf(info, 'scope'),
    bound: fieldOf(info, 'bound') === true
  }
  return URL.canParse(terms.issuer) && terms.clientId && terms.audience ? terms : undefined
}

/** What every question to the issuer names. By RFC 8707 the audience is asked for as a resource, which is a URI. */
export const askedOf = ({ clientId, audience }: Pick<Terms, 'clientId' | 'audience'>): Record<string, string> => ({
  client_id: clientId,
  audience,
  ...(audience.includes('://') && { resource: audience })
})

/**
 * Return where the person logs in.
 * @throws PeerError: the issuer names no address that a browser may be sent to.
 */
export function loginUrl(endpoint: string, begun: Begun): string {
  const url = URL.canParse(endpoint) ? new URL(endpoint) : undefined
  const isLocal = url?.protocol === 'http:' && /^(127\.0\.0\.1|localhost|\[::1\])$/.test(url.hostname)
  if (!url || url.username || (url.protocol !== 'https:' && !isLocal)) throw new PeerError(`${begun.issuer} names no page to log in at.`)
  const asked = {
    response_type: 'code',
    redirect_uri: begun.redirectUri,
    scope: begun.scope,
    state: begun.state,
    code_challenge: base64url(sha256(utf8(begun.verifier))),
    code_challenge_method: 'S256',
    ...askedOf(begun)
  }
  for (const [name, value] of Object.entries(asked)) url.searchParams.set(name, value)
  return url.href
}

/**
 * Read what the issuer sent the browser back with; returns the code.
 * @throws UsageError: it was denied, or is not the answer to what this tab asked for.
 */
export function codeOf(search: string, begun: Begun | undefined): string {
  const given = new URLSearchParams(search)
  const [code, state, from] = ['code', 'state', 'iss'].map(name => given.get(name) ?? undefined)
  if (!begun || state !== begun.state || (from !== undefined && from !== begun.issuer))
    throw new UsageError('This is not the answer to a login that this tab began. Begin it again.')
  if (code === undefined || given.has('error'))
    throw new UsageError(`${begun.issuer} refused the login: ${(given.get('error_description') ?? given.get('error') ?? 'it does not say why').slice(0, 300)}`)
  return code
}

/** Return a DPoP proof for one request. @param alg as the issuer names it. */
export async function keyProof(alg: string, endpoint: string, nonce: string | undefined, id: string, at: number, signer: Signer): Promise<string> {
  const jwk = { kty: 'OKP', crv: 'Ed25519', x: base64url(signer.publicKey) }
  const claims = { jti: id, htm: 'POST', htu: endpoint, iat: Math.floor(at / 1000), ...(nonce !== undefined && { nonce }) }
  const signed = [{ typ: 'dpop+jwt', alg, jwk }, claims].map(part => base64url(utf8(JSON.stringify(part)))).join('.')
  return `${signed}.${base64url(await signer.sign(utf8(signed)))}`
}

/** Return whether a token says that it is bound to a key (RFC 9449, 6.1); its signature is for the node to look at. */
export function isBound(token: string, publicKey: Bytes): boolean {
  try {
    const claims: unknown = JSON.parse(new TextDecoder().decode(fromBase64url(token.split('.')[1] ?? '')))
    const confirmed = isRow(claims) ? fieldOf(claims, 'cnf') : undefined
    // RFC 7638: the members that are needed, in order, without spaces.
    const thumbprint = base64url(sha256(utf8(`{"crv":"Ed25519","kty":"OKP","x":"${base64url(publicKey)}"}`)))
    return confirmed !== undefined && isRow(confirmed) && textOf(confirmed, 'jkt') === thumbprint
  } catch {
    return false
  }
}

/**
 * Read an issuer's answer. @param before: the refresh token so far.
 * @throws UsageError: there is no token in it that nodes can check, or none that is bound where it has to be.
 */
export function tokensOf(body: Row, terms: Terms, before: string | undefined, at: number, publicKey: Bytes): Tokens {
  // An opaque access token says nothing to a node; the id token is for the client, so only where that is meant.
  const found = [textOf(body, 'access_token'), terms.audience === terms.clientId ? textOf(body, 'id_token') : '']
  const token = found.find(each => each.split('.').length === 3)
  if (token === undefined) {
    const why = textOf(body, 'error_description') || textOf(body, 'error')
    throw new UsageError(why ? `${terms.issuer} refused a token: ${why.slice(0, 300)}` : `${terms.issuer} issues no signed token for ${terms.audience}.`)
  }
  if (terms.bound && !isBound(token, publicKey)) throw new UsageError(`${terms.issuer} issued a token that is not bound to this browser’s key, and the node takes bound ones only.`)
  const said = numberOf(body, 'expires_in')
  const seconds = said !== undefined && said > 0 ? Math.min(said, MOST_SECONDS) : DEFAULT_SECONDS
  return { token, refresh: textOf(body, 'refresh_token') || before, expiresAt: at + seconds * 1000 }
}
