/** One's runs, and those shared with one: on all nodes that this browser has used, and on those nearby. */
import { fieldOf, numberOf, textOf, type Row, type Sendable } from '../../core/value.ts'
import { nodeOf } from '../app.ts'
import { book, nameOf, remember } from '../book.ts'
import { host } from '../host.ts'
import { wordOf, type StateWord } from '../parts/parts.tsx'

export interface RunRow {
  key: string
  peerId: string
  node: string
  fid: string
  path: string
  name: string
  state: StateWord
  created: number
  modified: number
  runtime: number | undefined
  error: string
  own: boolean
  progress: number | undefined
  tags: string[]
  /** Place in the queue, from 1. */
  position: number | undefined
  /** Whether it waits for room on the disk of its node. */
  waits: boolean
  acknowledged: boolean
}

const MOST_EACH = 1000
const MAX_NODES = 32
const MAX_NEAR = 64

/** Read a row of `run.list`. */
export function readRun(row: Row, peerId: string): RunRow {
  const fid = textOf(row, 'fid')
  const error = fieldOf(row, 'error')
  const progress = fieldOf(row, 'progress')
  const tags = fieldOf(row, 'tags')
  const position = fieldOf(row, 'queue_position')
  return {
    key: `${peerId} ${fid}`,
    peerId,
    node: nameOf(peerId),
    fid,
    path: textOf(row, 'path'),
    name: textOf(row, 'name') || textOf(row, 'path'),
    state: wordOf(textOf(row, 'state'), typeof position === 'number'),
    created: numberOf(row, 'created') ?? 0,
    modified: numberOf(row, 'modified') ?? 0,
    runtime: numberOf(row, 'runtime_s'),
    error: typeof error === 'string' ? error : '',
    own: fieldOf(row, 'own') !== false,
    progress: typeof progress === 'number' ? progress : undefined,
    tags: Array.isArray(tags) ? tags.filter(each => typeof each === 'string') : [],
    position: typeof position === 'number' ? position : undefined,
    waits: textOf(row, 'waits') === 'room',
    acknowledged: fieldOf(row, 'acknowledged') === true
  }
}

/** The nodes that are worth asking: those that were of use, the latest first. */
export function usedNodes(): string[] {
  return [...book.peek().values()]
    .filter(each => each.at > 0)
    .sort((a, b) => b.at - a.at)
    .slice(0, MAX_NODES)
    .map(each => each.peerId)
}

/**
 * Ask the nodes that were of use, and, as `koco ps` does, those nearby, where others may have shared runs. Whoever has
 * something is of use from then on.
 * @param ask returns whether the node has anything for this person.
 * @param away is told of nodes of use that do not answer; a stranger owes nobody an answer.
 */
export async function askNodes(ask: (peerId: string) => Promise<boolean>, away: (peerId: string) => void, stop: AbortSignal): Promise<void> {
  const used = new Set(usedNodes())
  const near = async () => {
    const found = await host.peek().nearby(stop).catch(() => [])
    const strangers = found.filter(each => !used.has(each.peerId)).slice(0, MAX_NEAR)
    for (const each of strangers) remember(each.peerId, each.name, each.addrs)
    await Promise.allSettled(
      strangers.map(async ({ peerId }) => {
        if (await ask(peerId)) remember(peerId, nameOf(peerId), [], { used: true })
      })
    )
  }
  const asked = [...used].map(peerId => ask(peerId).catch(() => !stop.aborted && away(peerId)))
  await Promise.all([near(), ...asked])
}

/** Read the rows of a paged op everywhere, at most some of each node; told as they come, and so are the names of nodes that do not answer. */
export async function listRows(
  op: string,
  args: { readonly [key: string]: Sendable },
  tell: (peerId: string, rows: Row[]) => void,
  away: (name: string) => void,
  stop: AbortSignal
): Promise<void> {
  await askNodes(
    async peerId => {
      const rows: Row[] = []
      for await (const row of nodeOf(peerId).pages(op, { ...args, pp: 200 }, { signal: stop, timeout: 15_000 })) {
        rows.push(row)
        if (rows.length >= MOST_EACH) break
      }
      tell(peerId, rows)
      return rows.length > 0
    },
    peerId => away(nameOf(peerId)),
    stop
  )
}

/** List the runs of all nodes: as `listRows`. */
export const listRuns = (args: { readonly [key: string]: Sendable }, tell: (peerId: string, rows: RunRow[]) => void, away: (name: string) => void, stop: AbortSignal): Promise<void> =>
  listRows('run.list', args, (peerId, rows) => tell(peerId, rows.map(row => readRun(row, peerId))), away, stop)

/** Return what `run.list` takes for days as this device counts them, `2026-11-24`, both included; empty: open. */
export function dayBounds(from: string, to: string): { since: number | undefined; until: number | undefined } {
  const begin = (day: string, later: number) => {
    const [year, month, date] = day.split('-').map(Number)
    const at = new Date(year ?? 0, (month ?? 1) - 1, (date ?? 1) + later).getTime()
    return day === '' || !Number.isFinite(at) || at < 0 ? undefined : at
  }
  return { since: begin(from, 0), until: begin(to, 1) }
}

/** Download all that a run made: one file as it is, several as one archive. */
export async function fetchOutputs(row: RunRow): Promise<void> {
  const node = nodeOf(row.peerId)
  const names: string[] = []
  for await (const each of node.pages('output.list', { fid: row.fid, pp: 200 })) names.push(textOf(each, 'name'))
  const [first] = names
  if (first === undefined) return
  await (names.length === 1 ? node.download(row.fid, first) : node.downloadZip(row.fid, names, { saveAs: `${row.fid}.zip` })).done
}

export interface FlowStats {
  name: string
  runs: number
  errors: number
  /** Seconds; undefined without a finished run. */
  median: number | undefined
  slow: number | undefined
  /** Runs and errors of each of the last 14 days, the oldest first. */
  days: { runs: number; errors: number }[]
  types: [string, number][]
}

const DAY = 86_400_000
export const DAYS = 14

/** Add runs up by flow, the most used first. */
export function statsOf(rows: readonly RunRow[], now: number): FlowStats[] {
  const byFlow = new Map<string, RunRow[]>()
  for (const row of rows) {
    const known = byFlow.get(row.name)
    if (known) known.push(row)
    else byFlow.set(row.name, [row])
  }
  const today = Math.floor(now / DAY)
  return [...byFlow]
    .map(([name, runs]) => {
      const times = runs.flatMap(run => (run.state === 'done' && run.runtime !== undefined ? [run.runtime] : [])).sort((a, b) => a - b)
      const days = Array.from({ length: DAYS }, () => ({ runs: 0, errors: 0 }))
      const types = new Map<string, number>()
      for (const run of runs) {
        const day = days[DAYS - 1 - (today - Math.floor(run.created / DAY))]
        if (day) {
          day.runs += 1
          if (run.state === 'error') day.errors += 1
        }
        if (run.state === 'error') types.set(run.error || '?', (types.get(run.error || '?') ?? 0) + 1)
      }
      const at = (share: number) => times[Math.min(times.length - 1, Math.floor(times.length * share))]
      return {
        name,
        runs: runs.length,
        errors: runs.filter(run => run.state === 'error').length,
        median: at(0.5),
        slow: at(0.9),
        days,
        types: [...types].sort((a, b) => b[1] - a[1]).slice(0, 10)
      }
    })
    .sort((a, b) => b.runs - a.runs || a.name.localeCompare(b.name))
}
