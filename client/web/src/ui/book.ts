/** Nodes that this browser has met: where they were and what they were called. Claims, all of them. */
import { signal } from '@preact/signals'
import { keep, keptJson } from './storage.ts'

export interface Entry {
  peerId: string
  name: string
  addrs: string[]
  /** When it was last of use, ms UTC. */
  at: number
}

const NAME = 'kodo.nodes'
const MOST = 200
const MAX_ADDRS = 32

function read(): Map<string, Entry> {
  const found = new Map<string, Entry>()
  const rows = keptJson(NAME)
  for (const row of Array.isArray(rows) ? (rows as unknown[]) : []) {
    const { peerId, name, addrs, at } = row as Partial<Entry>
    if (typeof peerId === 'string' && typeof name === 'string' && Array.isArray(addrs) && typeof at === 'number')
      found.set(peerId, { peerId, name, addrs: addrs.filter(each => typeof each === 'string'), at })
  }
  return found
}

/** By peer id. */
export const book = signal<ReadonlyMap<string, Entry>>(read())

/** Remember a node; the one that was of no use for longest is forgotten when there are too many. */
export function remember(peerId: string, name: string, addrs: readonly string[], options: { used?: boolean } = {}): void {
  const known = book.peek().get(peerId)
  const entry = {
    peerId,
    name: name || (known?.name ?? ''),
    addrs: addrs.length > 0 ? addrs.slice(0, MAX_ADDRS) : (known?.addrs ?? []),
    at: options.used ? Date.now() : (known?.at ?? 0)
  }
  const all = [...book.peek().values()].filter(each => each.peerId !== peerId)
  all.push(entry)
  all.sort((a, b) => b.at - a.at)
  write(all.slice(0, MOST))
}

/** Forget a node. */
export function forget(peerId: string): void {
  write([...book.peek().values()].filter(each => each.peerId !== peerId))
}

function write(entries: Entry[]): void {
  book.value = new Map(entries.map(entry => [entry.peerId, entry]))
  keep(NAME, JSON.stringify(entries))
}

/** The name of a node for people: what it is called, else a short form of its peer id. */
export function nameOf(peerId: string): string {
  return book.value.get(peerId)?.name || shortId(peerId)
}

/** Return a peer id in short: its begin and its end. */
export const shortId = (id: string): string => (id.length > 16 ? `${id.slice(0, 8)}…${id.slice(-6)}` : id)
