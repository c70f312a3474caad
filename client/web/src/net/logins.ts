/** Who this browser is to a node or a registry: logging in, and again later by the token that was kept. */
import { makeProof } from '../core/enrol.ts'
import { CallError, PeerError } from '../core/errors.ts'
import type { Terms, Tokens } from '../core/oidc.ts'
import { type Row, type Sendable, fieldOf, numberOf } from '../core/value.ts'
import type { Logins } from './api.ts'
import type { Session } from './session.ts'
import type { Database } from './database.ts'
import type { Identity } from './identity.ts'
import type { IssuerLogin } from './oidc.ts'

const LOGIN_MS = 30_000
/** Before its end by so much a token is renewed. */
const EARLY_MS = 15_000

export interface KeptLogin {
  token: string
  /** ms UTC, where the node or the issuer said it. */
  expiresAt?: number
  /** Where it is renewed. */
  issued?: { terms: Terms; refresh?: string }
}

/** Where one logs in. */
export interface LoginDesk {
  /** Under what a login is kept: a node's peer id, a registry's URL. */
  readonly place: string
  /** Return the peer id that codes are for. */
  peerId(): Promise<string>
  /** Make a call whose answer is a map. */
  ask(op: string, args?: { readonly [key: string]: Sendable }, options?: { repeat?: boolean }): Promise<Row>
}

/** What logging in needs of the engine. */
export interface LoginContext {
  identity: Identity
  database: Database
  issuers: IssuerLogin
}

export class LoginKeeper implements Logins {
  readonly #desk: LoginDesk
  readonly #context: LoginContext

  constructor(desk: LoginDesk, context: LoginContext) {
    this.#desk = desk
    this.#context = context
  }

  get place(): string {
    return this.#desk.place
  }

  /** Return what is kept; asked for while the node is dialled, it costs a session nothing. */
  async kept(): Promise<KeptLogin | undefined> {
    const kept = (await this.#context.database.get('logins', this.place)) as KeptLogin | undefined
    if (kept?.expiresAt === undefined || kept.expiresAt > Date.now() + EARLY_MS) return kept
    const renewed = kept.issued?.refresh === undefined ? undefined : await this.#renew()
    return renewed ?? (kept.expiresAt > Date.now() ? kept : undefined)
  }

  /** Renew a token of an issuer, in one tab at a time: some issuers take a refresh token once. */
  async #renew(): Promise<KeptLogin | undefined> {
    const renew = async (): Promise<KeptLogin | undefined> => {
      const kept = (await this.#context.database.get('logins', this.place)) as KeptLogin | undefined
      if (kept?.issued?.refresh === undefined || (kept.expiresAt ?? 0) > Date.now() + EARLY_MS) return kept
      const tokens = await this.#context.issuers.refresh(kept.issued.terms, kept.issued.refresh)
      return this.#keepIssued(kept.issued.terms, tokens)
    }
    const { locks } = navigator as { locks?: LockManager } // of secure contexts alone
    try {
      return await (locks ? locks.request(`kodo.login.${this.place}`, renew) : renew())
    } catch {
      return undefined // the issuer is away, or wants the person again: what is kept holds until its end
    }
  }

  async #keepIssued(terms: Terms, { token, refresh, expiresAt }: Tokens): Promise<KeptLogin> {
    const kept: KeptLogin = { token, expiresAt, issued: { terms, ...(refresh !== undefined && { refresh }) } }
    await this.#context.database.put('logins', this.place, kept)
    return kept
  }

  async issued(terms: Terms, tokens: Tokens): Promise<Row> {
    const told = await this.#desk.ask('auth.login', { token: tokens.token })
    await this.#keepIssued(terms, tokens)
    return told
  }

  #keep(token: string, expiresAt?: number): Promise<void> {
    return this.#context.database.put('logins', this.place, { token, ...(expiresAt === undefined ? {} : { expiresAt }) })
  }

  /** Log a new session in by what was kept; a token that is refused is forgotten. Without one nothing happens. */
  async resume(session: Session, kept: KeptLogin | undefined): Promise<void> {
    if (kept) await this.#show(session, kept)
  }

  /** Forget a login that was refused, unless there is a later one by now. */
  async forget(refused: KeptLogin): Promise<void> {
    const kept = (await this.#context.database.get('logins', this.place)) as KeptLogin | undefined
    if (kept?.token === refused.token) await this.#context.database.remove('logins', this.place)
  }

  /** Log a session in; returns whether it is. */
  async again(session: Session): Promise<boolean> {
    const kept = await this.kept()
    return kept !== undefined && this.#show(session, kept)
  }

  async #show(session: Session, kept: KeptLogin): Promise<boolean> {
    try {
      await session.call('auth.login', { token: kept.token }, { timeout: LOGIN_MS }).done()
      return true
    } catch (error) {
      if (!(error instanceof CallError)) throw error
      if (error.code === 401) await this.forget(kept)
      return false
    }
  }

  info(): Promise<Row> {
    return this.#desk.ask('auth.info')
  }

  async token(token: string): Promise<Row> {
    const told = await this.#desk.ask('auth.login', { token })
    await this.#keep(token)
    return told
  }

  password(name: string, password: string): Promise<Row> {
    return this.#log('auth.password', { name, password })
  }

  async code(code: string): Promise<Row> {
    return this.#log('auth.enrol', { proof: makeProof(code, await this.#desk.peerId(), await this.#context.identity.peerId()) })
  }

  /** Log in by an op that answers with the token for the next sessions. */
  async #log(op: string, args: Record<string, string | Uint8Array>): Promise<Row> {
    const told = await this.#desk.ask(op, args, { repeat: false })
    const token = fieldOf(told, 'token')
    if (typeof token !== 'string') throw new PeerError(`the answer to ${op} has no token`)
    await this.#keep(token, numberOf(told, 'expires_at'))
    // It is kept, and shown nowhere.
    return Object.fromEntries(Object.entries(told).filter(([key]) => key !== 'token'))
  }

  whoami(): Promise<Row> {
    return this.#desk.ask('auth.whoami')
  }

  async logout(): Promise<void> {
    try {
      await this.#desk.ask('auth.logout', {}, { repeat: false })
    } finally {
      await this.#context.database.remove('logins', this.place)
    }
  }
}
