/** Logging in at an issuer: away to its page and back, and renewal. Its answers come through the page's server. */
import { base64url } from '../core/bytes.ts'
import { UsageError } from '../core/errors.ts'
import { type Begun, type Terms, type Tokens, askedOf, codeOf, keyProof, loginUrl, tokensOf } from '../core/oidc.ts'
import { type Row, fieldOf, isRow, textOf } from '../core/value.ts'
import type { IssuerRelay } from './api.ts'
import type { Identity } from './identity.ts'

const BEGUN = 'kodo.login'
const RANDOM_BYTES = 32

const random = (): string => base64url(crypto.getRandomValues(new Uint8Array(RANDOM_BYTES)))

/** Tokens of issuers for this browser's key. */
export class IssuerLogin {
  readonly #identity: Identity
  readonly #relay: IssuerRelay | undefined

  constructor(identity: Identity, relay: IssuerRelay | undefined) {
    this.#identity = identity
    this.#relay = relay
  }

  isPossible(issuer: string): boolean {
    return this.#relay !== undefined && (this.#relay.only ?? issuer) === issuer
  }

  #server(): IssuerRelay {
    if (!this.#relay) throw new UsageError('This page cannot ask issuers. Open it by `koco web`, and log in there.')
    return this.#relay
  }

  /** Remember what is asked for in this tab alone, and return where the person logs in. */
  async begin(place: string, terms: Terms): Promise<string> {
    const said = await this.#server().about(terms.issuer)
    const begun: Begun = { ...terms, place, state: random(), verifier: random(), redirectUri: `${location.origin}/`, back: location.hash }
    const url = loginUrl(textOf(said, 'authorization_endpoint'), begun)
    sessionStorage.setItem(BEGUN, JSON.stringify(begun))
    return url
  }

  /** Return what this tab had begun, once. */
  taken(): Begun | undefined {
    const kept = sessionStorage.getItem(BEGUN)
    sessionStorage.removeItem(BEGUN)
    return kept === null ? undefined : (JSON.parse(kept) as Begun)
  }

  /** Trade the code that the browser came back with. */
  async finish(search: string, begun: Begun | undefined): Promise<Tokens> {
    const code = codeOf(search, begun)
    const { redirectUri, verifier } = begun!
    return this.#token(begun!, { grant_type: 'authorization_code', code, redirect_uri: redirectUri, code_verifier: verifier }, undefined)
  }

  /** Get new tokens without anybody. @throws where the issuer gives none any more, or is away. */
  refresh(terms: Terms, refresh: string): Promise<Tokens> {
    return this.#token(terms, { grant_type: 'refresh_token', refresh_token: refresh }, refresh)
  }

  async #token(terms: Terms, form: Record<string, string>, before: string | undefined): Promise<Tokens> {
    const server = this.#server()
    const said = await server.about(terms.issuer)
    const [endpoint, alg] = [textOf(said, 'token_endpoint'), textOf(said, 'binding')]
    const signer = await this.#identity.signer()
    const ask = async (nonce: string | undefined): Promise<Row> => {
      const proof = alg ? await keyProof(alg, endpoint, nonce, random(), Date.now(), signer) : undefined
      return server.token(terms.issuer, { ...form, ...askedOf(terms) }, proof)
    }
    let answer = await ask(undefined)
    const body = (row: Row): Row => {
      const found = fieldOf(row, 'body')
      return found !== undefined && isRow(found) ? found : {}
    }
    const nonce = textOf(answer, 'nonce')
    if (alg && nonce && textOf(body(answer), 'error') === 'use_dpop_nonce') answer = await ask(nonce)
    return tokensOf(body(answer), terms, before, Date.now(), signer.publicKey)
  }
}
