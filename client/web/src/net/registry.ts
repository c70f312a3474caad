/** A registry's reads, by HTTP. */
import { CallError, NetworkError, PeerError } from '../core/errors.ts'
import { type Row, type Value, fieldOf, isRow, numberOf } from '../core/value.ts'
import type { Page, RegistryClient, RegistryQuery } from './api.ts'

/** Milliseconds. */
const TIMEOUT = 15_000
/** As Python's client bounds an answer. */
const MAX_BYTES = 32 << 20

interface Options {
  signal?: AbortSignal
}

export class HttpRegistry implements RegistryClient {
  readonly url: string

  constructor(url: string) {
    this.url = url.replace(/\/+$/, '')
  }

  async #get(path: string, query: RegistryQuery, options: Options): Promise<Row> {
    const words = new URLSearchParams()
    for (const [name, value] of Object.entries(query)) if (value !== undefined && value !== '') words.set(name, String(value))
    const asked = words.size > 0 ? `${path}?${words.toString()}` : path
    const deadline = AbortSignal.timeout(TIMEOUT)
    let response: Response
    let text: string
    try {
      response = await fetch(`${this.url}${asked}`, {
        signal: options.signal ? AbortSignal.any([options.signal, deadline]) : deadline,
        credentials: 'same-origin',
        referrerPolicy: 'no-referrer',
        redirect: 'error'
      })
      text = await bounded(response)
    } catch (error) {
      if (options.signal?.aborted || error instanceof PeerError) throw error
      throw new NetworkError(`The registry ${this.url} cannot be reached.`)
    }
    const body = parse(text)
    if (response.ok && isRow(body)) return body
    throw refusalOf(response.status, body, this.url)
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

  async addresses(peerId: string, options: Options = {}): Promise<string[]> {
    // It may come from anywhere, and becomes a part of a query.
    if (!/^[1-9A-HJ-NP-Za-km-z]{1,128}$/.test(peerId)) return []
    const { rows } = await this.#page('/nodes', { query: `peer_id == "${peerId}"` }, options)
    const addrs = rows.filter(row => fieldOf(row, 'peer_id') === peerId).map(row => fieldOf(row, 'addrs'))
    return addrs.flatMap(list => (Array.isArray(list) ? list.filter(each => typeof each === 'string') : []))
  }
}

/** Read an answer's text. @throws PeerError: it is over the bound. */
export async function bounded(response: Response): Promise<string> {
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader()
  let text = ''
  for (;;) {
    const read = await reader?.read()
    if (!read || read.done) return text
    text += read.value
    if (text.length > MAX_BYTES) {
      await reader?.cancel()
      throw new PeerError('A registry answers more than is read.')
    }
  }
}

/** Read JSON; what is none is null. */
export function parse(text: string): Value {
  try {
    return JSON.parse(text) as Value
  } catch {
    return null
  }
}

/** A refusal as problem details (RFC 9457), as the same error as a node's. */
export function refusalOf(status: number, body: Value, url: string): CallError {
  const said = isRow(body) ? body : {}
  const [reason, detail] = [fieldOf(said, 'reason'), fieldOf(said, 'detail') ?? fieldOf(said, 'title')]
  const message = typeof detail === 'string' ? detail : `The registry ${url} answered ${status}.`
  return new CallError(status, typeof reason === 'string' ? reason : 'refused', message, said)
}
