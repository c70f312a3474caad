/**
 * Who serves this page, and what can be asked there: `koco web` tells who is nearby and reads registries for the page; a
 * registry is one itself. Both tell where nodes are and nothing else: whatever is done is done with the node itself.
 */
import { signal } from '@preact/signals'
import { UsageError, CallError, UnreachableError } from '../core/errors.ts'
import { type TurnOffer, readTurn } from '../core/turn.ts'
import { fieldOf, isRow, textOf, type Row } from '../core/value.ts'
import type { IssuerRelay, RegistryClient } from '../net/api.ts'
import { KeptTurn } from '../net/turn.ts'
import { kept, keep } from './storage.ts'

export interface Catalog {
  /** Its URL, for people. */
  readonly url: string
  /** A page of its flows or nodes. */
  flows(query: CatalogQuery, stop: AbortSignal): Promise<CatalogPage>
  nodes(query: CatalogQuery, stop: AbortSignal): Promise<CatalogPage>
  addresses(peerId: string, stop: AbortSignal): Promise<string[]>
}

export interface CatalogQuery {
  search?: string
  query?: string
  by?: string
  p?: number
  pp?: number
}

export interface CatalogPage {
  rows: Row[]
  filtered: number
  pages: number
}

export interface Nearby {
  peerId: string
  name: string
  addrs: string[]
  source: string
}

export interface Host {
  readonly kind: 'web' | 'registry' | 'none'
  /** `locked`: `koco web` wants to see its key first. */
  readonly status: 'open' | 'locked' | 'away'
  readonly catalogs: readonly Catalog[]
  /** Whether there is anybody who looks around on the local network. */
  readonly lan: boolean
  nearby(stop: AbortSignal): Promise<Nearby[]>
  /** Where a node is said to be now. */
  addresses(peerId: string, stop: AbortSignal): Promise<string[]>
  /** What the registries offer that this page's server reads, to reach a node over TURN servers; each when it has said so. */
  turn(peerId: string, stop: AbortSignal): Promise<TurnOffer>[]
  /** What assistants and editors are told, so that they can run a flow: texts by their names; undefined where nobody knows. */
  readonly configs: ((peerId: string, path: string, stop: AbortSignal) => Promise<Map<string, string>>) | undefined
  /** Who asks issuers of tokens for the page; undefined where nobody does. */
  readonly issuers: IssuerRelay | undefined
}

const KEY = 'kodo.key'
const MAX_ANSWER = 32 << 20
const MAX_ADDRS = 32

const closed = (kind: Host['kind'], status: Host['status']): Host => ({
  kind,
  status,
  catalogs: [],
  lan: false,
  nearby: () => Promise.resolve([]),
  addresses: () => Promise.resolve([]),
  turn: () => [],
  configs: undefined,
  issuers: undefined
})

export const host = signal<Host>(closed('none', 'away'))

/** Find out who serves the page. `entry`: the key of the address that `koco web` printed. */
export async function openHost(entry: string | undefined): Promise<void> {
  const kind = document.documentElement.dataset['host']
  if (kind === 'registry') host.value = { ...closed('registry', 'open'), issuers: relayOf(document.documentElement.dataset['issuer']) }
  else if (kind === 'web') {
    try {
      host.value = await ofWeb(entry)
    } catch (error) {
      host.value = closed('web', error instanceof CallError && error.code === 401 ? 'locked' : 'away')
    }
  }
}

const texts = (value: unknown): string[] =>
  Array.isArray(value) ? value.filter(each => typeof each === 'string').slice(0, MAX_ADDRS) : []

/** Read JSON of this page's own origin. */
async function ask(path: string, stop: AbortSignal | undefined, init: RequestInit = {}): Promise<Row> {
  let answer: Response
  try {
    answer = await fetch(path, { ...init, credentials: 'omit', redirect: 'error', cache: 'no-store', signal: stop ?? null })
  } catch (error) {
    if (stop?.aborted) throw error
    throw new UnreachableError('The server of this page does not answer. Is it still running?')
  }
  const size = Number(answer.headers.get('Content-Length') ?? 0)
  if (size > MAX_ANSWER) throw new UsageError('The answer is too large.')
  let read: unknown
  try {
    read = await answer.json()
  } catch {
    throw new UnreachableError('The server of this page gave an answer that cannot be read.')
  }
  const row = isRow(read) ? read : {}
  if (!answer.ok) {
    const [reason, detail] = [fieldOf(row, 'reason'), fieldOf(row, 'detail')].map(value => (typeof value === 'string' ? value : ''))
    throw new CallError(answer.status, reason || 'refused', detail || answer.statusText, row)
  }
  return row
}

function queryOf(query: CatalogQuery): string {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== '')
  return given.length > 0 ? `?${new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString()}` : ''
}

function pageOf(row: Row): CatalogPage {
  const result = fieldOf(row, 'result')
  const number = (name: string) => Number(fieldOf(row, name) ?? 0) || 0
  return {
    rows: Array.isArray(result) ? result.filter(isRow) : [],
    filtered: number('filtered_records'),
    pages: number('total_pages')
  }
}

function catalog(url: string, read: (path: string, stop: AbortSignal) => Promise<Row>, addresses: Catalog['addresses']): Catalog {
  return {
    url,
    flows: async (query, stop) => pageOf(await read(`/flows${queryOf(query)}`, stop)),
    nodes: async (query, stop) => pageOf(await read(`/nodes${queryOf(query)}`, stop)),
    addresses
  }
}

/** The server of this page, as who asks issuers for it. */
function relay(headers: () => Record<string, string>, only?: string): IssuerRelay {
  const post = (path: string, body: unknown) =>
    ask(path, undefined, { method: 'POST', headers: { ...headers(), 'Content-Type': 'application/json' }, body: JSON.stringify(body) })
  return {
    ...(only !== undefined && { only }),
    about: issuer => post('/api/issuer', { issuer }),
    token: (issuer, form, proof) => post('/api/issuer/token', { issuer, form, ...(proof !== undefined && { proof }) })
  }
}

/** A registry asks its own issuer alone, where it has one. */
const relayOf = (issuer: string | undefined): IssuerRelay | undefined => (issuer ? relay(() => ({}), issuer) : undefined)

/** The page of a registry finds what is in that registry. */
export function serveRegistry(registry: RegistryClient): void {
  const own: Catalog = {
    url: registry.url,
    flows: (query, signal) => registry.flows(query, { signal }),
    nodes: (query, signal) => registry.nodes(query, { signal }),
    addresses: async (peerId, signal) => (await registry.addresses(peerId, { signal })).slice(0, MAX_ADDRS)
  }
  host.value = { ...host.value, catalogs: [own], addresses: (peerId, signal) => own.addresses(peerId, signal) }
}

async function ofWeb(entry: string | undefined): Promise<Host> {
  if (entry !== undefined) {
    const entered = await ask('/api/enter', undefined, { method: 'POST', headers: { Authorization: `Bearer ${entry}` } })
    const key = fieldOf(entered, 'key')
    if (typeof key === 'string') keep(KEY, key)
  }
  if (kept(KEY) === undefined) return closed('web', 'locked')
  const read = (path: string, stop?: AbortSignal) =>
    ask(path, stop, { headers: { Authorization: `Bearer ${kept(KEY) ?? ''}` } })
  const about = await read('/api/about')
  const urls = texts(fieldOf(about, 'registries'))
  const addressesAt = async (base: string, peerId: string, stop: AbortSignal) =>
    texts(fieldOf(await read(`${base}/nodes/${encodeURIComponent(peerId)}`, stop), 'addrs'))
  const turns = urls.map((url, index) => new KeptTurn(async stop => readTurn(await read(`/api/registries/${index}/turn`, stop), url)))
  return {
    kind: 'web',
    status: 'open',
    issuers: relay(() => ({ Authorization: `Bearer ${kept(KEY) ?? ''}` })),
    configs: async (peerId, path, stop) => {
      const result = fieldOf(await read(`/api/mcp?${new URLSearchParams({ peer_id: peerId, path }).toString()}`, stop), 'result')
      const rows = isRow(result) ? Object.entries(result) : []
      return new Map(rows.filter((row): row is [string, string] => typeof row[1] === 'string'))
    },
    lan: fieldOf(about, 'lan') === true,
    catalogs: urls.map((url, index) => {
      const base = `/api/registries/${index}`
      return catalog(url, (path, stop) => read(base + path, stop), (peerId, stop) => addressesAt(base, peerId, stop))
    }),
    turn: (peerId, stop) =>
      turns.map(async (turning, index) => {
        const [turn, addrs] = await Promise.all([turning.get(), addressesAt(`/api/registries/${index}`, peerId, stop)])
        return { turn, addrs }
      }),
    nearby: async stop => {
      const result = fieldOf(await read('/api/nodes', stop), 'result')
      return (Array.isArray(result) ? result.filter(isRow) : []).map(row => ({
        peerId: textOf(row, 'peer_id'),
        name: textOf(row, 'name'),
        source: textOf(row, 'source'),
        addrs: texts(fieldOf(row, 'addrs'))
      }))
    },
    addresses: async (peerId, stop) => texts(fieldOf(await read(`/api/nodes/${encodeURIComponent(peerId)}`, stop), 'addrs'))
  }
}
