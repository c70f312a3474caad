/** Signed calls of a registry, of its users and operators, each good once. The key is this browser's own. */
import { authorization, enrolment } from '../core/claim.ts'
import { CallError, PeerError } from '../core/errors.ts'
import { encode } from '../core/msgpack.ts'
import { type Bytes, type Row, type Sendable, fieldOf, isRow, numberOf, textOf } from '../core/value.ts'
import type { RegistryOperator } from './api.ts'
import { type LoginContext, LoginKeeper } from './logins.ts'
import { exchange } from './registry_http.ts'

const JSON_TYPE = 'application/json'
const MSGPACK = 'application/msgpack'
const MAX_PAGES = 1000
/** The login that was shown is worth nothing any more. */
const LOGIN_REFUSED: ReadonlySet<string> = new Set(['bad-token', 'login-needed'])

export class SignedRegistry implements RegistryOperator {
  readonly url: string
  readonly logins: LoginKeeper
  readonly #context: LoginContext
  #ahead = 0
  #latest = 0
  /** The call before: one at a time, for the registry takes the claims of a key in their order. */
  #before: Promise<unknown> = Promise.resolve()

  constructor(url: string, context: LoginContext) {
    this.url = url.replace(/\/+$/, '')
    this.#context = context
    const desk = { place: this.url, peerId: () => this.#peerId(), ask: this.ask.bind(this) }
    this.logins = new LoginKeeper(desk, context)
  }

  /** Read as who this browser is there. */
  get(target: string, signal?: AbortSignal): Promise<Row> {
    return this.#signed('GET', target, new Uint8Array(), JSON_TYPE, signal)
  }

  call(method: string, target: string, body?: { readonly [key: string]: Sendable }): Promise<Row> {
    const sent = body === undefined ? new Uint8Array() : new TextEncoder().encode(JSON.stringify(body))
    return this.#signed(method, target, sent, JSON_TYPE)
  }

  /** One of the ops on users, which take what nodes take. */
  ask(op: string, args: { readonly [key: string]: Sendable } = {}): Promise<Row> {
    // Registries take canonical msgpack alone: keys in ascending order.
    const ordered = Object.entries(args).sort(([a], [b]) => (a < b ? -1 : 1))
    return this.#signed('POST', `/access/${encodeURIComponent(op)}`, encode(Object.fromEntries(ordered)), MSGPACK)
  }

  async *pages(op: string, args: { readonly [key: string]: Sendable } = {}): AsyncGenerator<Row> {
    for (let p = 1; p <= MAX_PAGES; p += 1) {
      const answer = await this.ask(op, { pp: 20, ...args, p })
      const rows = fieldOf(answer, 'result')
      if (!Array.isArray(rows) || !rows.every(isRow)) throw new PeerError(`The answer to ${op} has no rows.`)
      yield* rows
      if (rows.length === 0 || p >= (numberOf(answer, 'total_pages') ?? 1)) return
    }
  }

  async enrol(code: string): Promise<Row> {
    const sent = await enrolment(code, await this.#peerId(), await this.#context.identity.signer())
    return exchange(this.url, 'POST', '/operators', sent, MSGPACK, {})
  }

  async #peerId(): Promise<string> {
    const state = await exchange(this.url, 'GET', '/state', new Uint8Array(), JSON_TYPE, {})
    const registry = textOf(state, 'peer_id')
    if (!registry) throw new PeerError('This registry does not name its peer id: it runs an earlier release.')
    return registry
  }

  #signed(method: string, target: string, body: Bytes, type: string, signal?: AbortSignal): Promise<Row> {
    const answer = this.#before.then(() => this.#send(method, target, body, type, signal))
    this.#before = answer.catch(() => undefined)
    return answer
  }

  async #send(method: string, target: string, body: Bytes, type: string, signal?: AbortSignal): Promise<Row> {
    signal?.throwIfAborted()
    const [signer, login] = await Promise.all([this.#context.identity.signer(), this.logins.kept()])
    const host = new URL(this.url).host
    for (let left = 1; ; left -= 1) {
      // Strictly rising, also within a millisecond.
      this.#latest = Math.max(this.#latest + 1, Date.now() + this.#ahead)
      const header = await authorization({ host, method, target, body, at: this.#latest }, signer)
      const headers = { Authorization: header, ...(login && { 'Kodo-Token': login.token }) }
      try {
        return await exchange(this.url, method, target, body, type, headers, signal)
      } catch (error) {
        if (login && error instanceof CallError && LOGIN_REFUSED.has(error.reason)) await this.logins.forget(login)
        const clock = error instanceof CallError && error.reason === 'stale-claim' ? numberOf(error.data, 'registry') : undefined
        if (left === 0 || clock === undefined || !Number.isSafeInteger(clock)) throw error
        this.#ahead = clock - Date.now()
        this.#latest = 0
      }
    }
  }
}
