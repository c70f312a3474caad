/** Which flows there are: of nodes nearby, asked directly, and of registries. */
import { signal } from '@preact/signals'
import { CallError } from '../../core/errors.ts'
import { fieldOf, numberOf, textOf, type Row } from '../../core/value.ts'
import { nodeOf } from '../app.ts'
import { book, remember } from '../book.ts'
import { host } from '../host.ts'

export interface FlowRow {
  peerId: string
  node: string
  path: string
  name: string
  description: string
  author: string
  organization: string
  release: string
  published: number | undefined
  tags: string[]
  broken: boolean
  /** `near`, or the URL of a registry. */
  source: string
}

export interface Found {
  rows: FlowRow[]
  /** How many there are where not all are listed. */
  more: boolean
}

const PAGE = 100
const MAX_ROWS = 2000
const MAX_NODES = 64

export interface Asked {
  /** How many nodes are still asked for their flows. */
  left: number
  /** Who gave no answer, by name. */
  away: readonly string[]
  /** Registries that want a login, by URL, and what others say that refuse. */
  closed: readonly string[]
  refused: readonly string[]
}

export const asked = signal<Asked>({ left: 0, away: [], closed: [], refused: [] })

function flowOf(row: Row, peerId: string, node: string, source: string): FlowRow {
  const tags = fieldOf(row, 'tags')
  const broken = fieldOf(row, 'broken')
  return {
    peerId,
    node,
    path: textOf(row, 'path'),
    name: textOf(row, 'name') || textOf(row, 'path'),
    description: textOf(row, 'description'),
    author: textOf(row, 'author'),
    organization: textOf(row, 'organization'),
    release: textOf(row, 'release'),
    published: numberOf(row, 'published'),
    tags: Array.isArray(tags) ? tags.filter(each => typeof each === 'string').slice(0, 32) : [],
    broken: typeof broken === 'string' || broken === true,
    source
  }
}

/** Ask one node for its flows. */
export async function flowsOfNode(peerId: string, source: string, stop: AbortSignal): Promise<FlowRow[]> {
  const node = nodeOf(peerId)
  const rows: FlowRow[] = []
  for await (const row of node.pages('flow.list', {}, { signal: stop, timeout: 15_000 })) {
    rows.push(flowOf(row, peerId, node.label, source))
    if (rows.length >= MAX_ROWS) break
  }
  if (node.label !== peerId) remember(peerId, node.label, [])
  return rows
}

/** Look around and ask every node that is found; each answer is told as it comes. */
export async function lookAround(tell: (rows: FlowRow[]) => void, stop: AbortSignal): Promise<void> {
  asked.value = { ...asked.peek(), left: 0, away: [], refused: [] }
  const begun = new Set<string>()
  const ask = async (peerId: string, name: string) => {
    if (begun.has(peerId) || begun.size >= MAX_NODES) return
    begun.add(peerId)
    asked.value = { ...asked.peek(), left: asked.peek().left + 1 }
    try {
      tell(await flowsOfNode(peerId, 'near', stop))
    } catch {
      if (!stop.aborted) asked.value = { ...asked.peek(), away: [...asked.peek().away, name] }
    } finally {
      if (!stop.aborted) asked.value = { ...asked.peek(), left: asked.peek().left - 1 }
    }
  }
  // Nodes used before are asked at once, not after the seconds that looking around takes.
  const used = [...book.peek().values()].filter(each => each.at > 0).slice(0, MAX_NODES)
  const first = used.map(each => ask(each.peerId, each.name || each.peerId))
  const found = await host.peek().nearby(stop)
  for (const each of found) remember(each.peerId, each.name, each.addrs)
  await Promise.all([...first, ...found.map(each => ask(each.peerId, each.name))])
}

/** Ask the registries. */
export async function searchCatalogs(search: string, by: string, stop: AbortSignal, tell: (rows: FlowRow[], source: string) => void): Promise<void> {
  const isClosed = (url: string, wants: boolean) => {
    const others = asked.peek().closed.filter(each => each !== url)
    asked.value = { ...asked.peek(), closed: wants ? [...others, url] : others }
  }
  await Promise.all(
    host.peek().catalogs.map(async catalog => {
      try {
        const page = await catalog.flows({ ...(search && { search }), by, pp: PAGE }, stop)
        const rows = page.rows.map(row => {
          const peerId = textOf(row, 'peer_id')
          const addrs = fieldOf(row, 'addrs')
          remember(peerId, textOf(row, 'node'), Array.isArray(addrs) ? addrs.filter(each => typeof each === 'string') : [])
          return flowOf(row, peerId, textOf(row, 'node'), catalog.url)
        })
        isClosed(catalog.url, false)
        tell(rows, catalog.url)
      } catch (error) {
        if (stop.aborted) throw error
        if (error instanceof CallError && error.code === 401) isClosed(catalog.url, true)
        else if (error instanceof CallError) asked.value = { ...asked.peek(), refused: [...asked.peek().refused, `${catalog.url}: ${error.message}`] }
        else asked.value = { ...asked.peek(), away: [...asked.peek().away, catalog.url] }
      }
    })
  )
}

/** Return whether a flow has a text in one of the fields that people search. */
export function fits(row: FlowRow, search: string): boolean {
  const wanted = search.trim().toLowerCase()
  if (!wanted) return true
  const texts = [row.name, row.description, row.author, row.organization, row.node, row.path, ...row.tags]
  if (/[*?]/.test(wanted)) {
    const pattern = glob(wanted)
    return texts.some(text => pattern(text.toLowerCase()))
  }
  return texts.some(text => text.toLowerCase().includes(wanted))
}

/** Return a test for a pattern with `*` and `?`, in time linear in pattern times text. */
export function glob(pattern: string): (text: string) => boolean {
  return text => {
    let [at, star, mark] = [0, -1, 0]
    let place = 0
    while (at < text.length) {
      if (place < pattern.length && (pattern[place] === '?' || pattern[place] === text[at])) {
        place += 1
        at += 1
      } else if (pattern[place] === '*') {
        star = place
        mark = at
        place += 1
      } else if (star >= 0) {
        place = star + 1
        mark += 1
        at = mark
      } else return false
    }
    while (pattern[place] === '*') place += 1
    return place === pattern.length
  }
}
