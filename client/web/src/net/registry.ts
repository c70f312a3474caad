/** A registry's reads, by HTTP. */
import { CallError, PeerError } from '../core/errors.ts'
import { type Turn, readTurn } from '../core/turn.ts'
import { type Row, fieldOf, isRow, numberOf } from '../core/value.ts'
import type { Logins, Page, RegistryClient, RegistryQuery } from './api.ts'
import type { SignedRegistry } from './operator.ts'
import { exchange } from './registry_http.ts'
import { KeptTurn } from './turn.ts'

interface Options {
  signal?: AbortSignal
}

export class HttpRegistry implements RegistryClient {
  readonly url: string
  readonly #signed: SignedRegistry
  /** Whether the registry wants to know who reads. */
  #guarded = false
  readonly #turn = new KeptTurn(async signal => readTurn(await this.#get('/turn', {}, { signal }), this.url))

  constructor(signed: SignedRegistry) {
    this.url = signed.url
    this.#signed = signed
  }

  get logins(): Logins {
    return this.#signed.logins
  }

  async #get(path: string, query: RegistryQuery, { signal }: Options): Promise<Row> {
    const words = new URLSearchParams()
    for (const [name, value] of Object.entries(query)) if (value !== undefined && value !== '') words.set(name, String(value))
    const asked = words.size > 0 ? `${path}?${words.toString()}` : path
    if (!this.#guarded)
      try {
        return await exchange(this.url, 'GET', asked, new Uint8Array(), '', {}, signal)
      } catch (error) {
        if (!(error instanceof CallError && error.reason === 'login-needed')) throw error
        this.#guarded = true
      }
    return this.#signed.get(asked, signal)
  }

  state(options: Options = {}): Promise<Row> {
    return this.#get('/state', {}, options)
  }

  nodes(query: RegistryQuery = {}, options: Options = {}): Promise<Page> {
    return this.#page('/nodes', query, options)
  }

  flows(query: RegistryQuery = {}, options: Options = {}): Promise<Page> {
    return this.#page('/flows', query, options)
  }

  async #page(path: string, query: RegistryQuery, options: Options): Promise<Page> {
    const answer = await this.#get(path, query, options)
    const rows = fieldOf(answer, 'result')
    if (!Array.isArray(rows) || !rows.every(isRow)) throw new PeerError(`The registry ${this.url} answered without rows.`)
    const [total, filtered, pages] = ['total_records', 'filtered_records', 'total_pages'].map(name => numberOf(answer, name) ?? 0)
    return { total: total!, filtered: filtered!, pages: pages!, rows }
  }

  /** Return the TURN servers that it names, asked for where what is known has nearly expired. @throws CallError 404 `no-turn`: none. PeerError: none that may be used. */
  turn(): Promise<Turn> {
    return this.#turn.get()
  }

  async addresses(peerId: string, options: Options = {}): Promise<string[]> {
    // It may come from anywhere, and becomes a part of a query.
    if (!/^[1-9A-HJ-NP-Za-km-z]{1,128}$/.test(peerId)) return []
    const { rows } = await this.#page('/nodes', { query: `peer_id == "${peerId}"` }, options)
    const addrs = rows.filter(row => fieldOf(row, 'peer_id') === peerId).map(row => fieldOf(row, 'addrs'))
    return addrs.flatMap(list => (Array.isArray(list) ? list.filter(each => typeof each === 'string') : []))
  }
}
