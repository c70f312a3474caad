/** An operator's side of a registry: signed calls, each good once. The key is this browser's own. */
import { authorization, enrolment } from '../core/claim.ts'
import { CallError, NetworkError, PeerError } from '../core/errors.ts'
import { decode, encode } from '../core/msgpack.ts'
import { type Bytes, type Row, type Sendable, type Value, fieldOf, isRow, numberOf, textOf } from '../core/value.ts'
import type { RegistryOperator } from './api.ts'
import type { Identity } from './identity.ts'
import { bounded, parse, refusalOf } from './registry.ts'

/** Milliseconds. */
const TIMEOUT = 15_000
const JSON_TYPE = 'application/json'
const MSGPACK = 'application/msgpack'
const MAX_PAGES = 1000

export class SignedRegistry implements RegistryOperator {
  readonly url: string
  readonly #identity: Identity
  #ahead = 0
  #latest = 0

  constructor(url: string, identity: Identity) {
    this.url = url.replace(/\/+$/, '')
    this.#identity = identity
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
    const state = await this.#send('GET', '/state', new Uint8Array(), JSON_TYPE, {})
    const registry = textOf(state, 'peer_id')
    if (!registry) throw new PeerError('This registry does not name its peer id: it runs an earlier release.')
    return this.#send('POST', '/operators', await enrolment(code, registry, await this.#identity.signer()), MSGPACK, {})
  }

  async #signed(method: string, target: string, body: Bytes, type: string): Promise<Row> {
    const signer = await this.#identity.signer()
    const host = new URL(this.url).host
    for (let left = 1; ; left -= 1) {
      // Strictly rising, also within a millisecond.
      this.#latest = Math.max(this.#latest + 1, Date.now() + this.#ahead)
      const header = await authorization({ host, method, target, body, at: this.#latest }, signer)
      try {
        return await this.#send(method, target, body, type, { Authorization: header })
      } catch (error) {
        const clock = error instanceof CallError && error.reason === 'stale-claim' ? numberOf(error.data, 'registry') : undefined
        if (left === 0 || clock === undefined || !Number.isSafeInteger(clock)) throw error
        this.#ahead = clock - Date.now()
        this.#latest = 0
      }
    }
  }

  async #send(method: string, target: string, body: Bytes, type: string, headers: Record<string, string>): Promise<Row> {
    let response: Response
    let read: Value
    try {
      response = await fetch(this.url + target, {
        method,
        headers: { ...headers, ...(body.length > 0 && { 'Content-Type': type }) },
        body: body.length > 0 ? body : null,
        signal: AbortSignal.timeout(TIMEOUT),
        credentials: 'omit',
        referrerPolicy: 'no-referrer',
        redirect: 'error',
        cache: 'no-store'
      })
      const isPacked = response.ok && response.headers.get('Content-Type')?.startsWith(MSGPACK) === true
      read = isPacked ? decode(new Uint8Array(await response.arrayBuffer())) : parse(await bounded(response))
    } catch (error) {
      if (error instanceof PeerError) throw error
      throw new NetworkError(`The registry ${this.url} cannot be reached.`)
    }
    if (response.ok && isRow(read)) return read
    throw refusalOf(response.status, read, this.url)
  }
}
