/**
 * Events, and what those of one run add up to: the same rules as `kodo.protocol.events.RunView`.
 *
 * State, always: `error` if there was a `fatal`; else `done` if a `final`; else `locked` if a `lock` has neither `unlock`
 * nor `lock-timeout`; else `pending`.
 */
import { PeerError } from './errors.ts'
import { type Row, type Value, fieldOf, isRow } from './value.ts'

export type RunState = 'pending' | 'locked' | 'done' | 'error'

/** One entry of a run's log: `seq` counts 1, 2, 3 …; `at` is ms UTC from the node's clock. */
export interface RunEvent {
  readonly seq: number
  readonly at: number
  readonly kind: string
  readonly event: string
  readonly data: Row
}

/** A lock that waits; `candidate` is the id of the answer that awaits its verdict. Times in ms UTC. */
export interface OpenLock {
  readonly lid: string
  readonly title: string
  readonly schema: Row
  readonly openedAt: number
  readonly expiresAt: number
  readonly default: Value
  readonly hasDefault: boolean
  readonly candidate: string | undefined
  readonly candidateAt: number
  readonly verdictS: number
  readonly roles: readonly string[]
  readonly users: readonly string[]
}

const MAX_LISTED = 1000
const MAX_HELD = 10_000
const LISTED_BYTES = 1 << 20
const HELD_BYTES = 256 << 20
const LOCK_EXPIRES_S = 64_800
const LOCK_VERDICT_S = 60
const MAX_SECONDS = 1e9

/** Read an event that a node sent. @throws PeerError: it is not an event. */
export function readEvent(value: Value): RunEvent {
  if (isRow(value)) {
    const [seq, at, kind, event, data] = ['seq', 'at', 'kind', 'event', 'data'].map(name => fieldOf(value, name))
    if (
      Number.isSafeInteger(seq) &&
      Number.isSafeInteger(at) &&
      typeof kind === 'string' &&
      typeof event === 'string' &&
      data !== undefined &&
      isRow(data) &&
      (seq as number) >= 1
    )
      return { seq: seq as number, at: at as number, kind, event, data }
  }
  throw new PeerError('the node sent something that is not an event')
}

/** Estimate the memory that a value takes, in bytes. */
function weigh(value: unknown): number {
  let total = 0
  const left = [value]
  while (left.length > 0) {
    const each = left.pop()
    total += 16
    if (typeof each === 'string' || each instanceof Uint8Array) total += each.length
    else if (Array.isArray(each)) left.push(...(each as unknown[]))
    else if (typeof each === 'object' && each !== null)
      for (const [key, inner] of Object.entries(each)) {
        total += key.length
        left.push(inner)
      }
  }
  return total
}

/** Counts and weighs what is kept, and says what is to be dropped: the oldest, never the latest. */
class Bound {
  readonly #weights = new Map<string, number>()
  #total = 0

  constructor(
    readonly count: number,
    readonly size: number
  ) {}

  take(key: string, value: unknown): string[] {
    this.forget(key)
    const weight = weigh(value) + key.length
    this.#weights.set(key, weight)
    this.#total += weight
    const dropped: string[] = []
    for (const oldest of this.#weights.keys()) {
      const fits = this.#weights.size <= this.count && (this.#total <= this.size || this.#weights.size <= 1)
      if (fits) break
      this.forget(oldest)
      dropped.push(oldest)
    }
    return dropped
  }

  forget(key: string): void {
    this.#total -= this.#weights.get(key) ?? 0
    this.#weights.delete(key)
  }
}

/** Seconds that a node says, where they are any. */
function seconds(value: Value | undefined, otherwise: number): number {
  const number = typeof value === 'bigint' ? Number(value) : value
  return typeof number === 'number' && number >= 0 ? Math.min(number, MAX_SECONDS) : otherwise
}

/** A value as text, as Python's `str` writes what JSON has. */
function asText(value: Value | undefined): string {
  if (typeof value === 'string') return value
  if (value === undefined || value === null) return 'None'
  if (typeof value === 'boolean') return value ? 'True' : 'False'
  return typeof value === 'object' ? JSON.stringify(value, (_, each: unknown) => (typeof each === 'bigint' ? String(each) : each)) : String(value)
}

const words = (value: Value | undefined): string[] => (Array.isArray(value) ? value.map(asText) : [])

/** What the events of one run add up to; feed them in order with `apply`. Bounded, whatever the events. */
export class RunView {
  lastSeq = 0
  created = 0
  modified = 0
  /** The latest progress that is not a part of another one. */
  progress: Row | undefined
  inputs: Row = {}
  version: Row = {}
  flow: Row = {}
  readonly config = new Map<string, Value>()
  readonly agents: Row[] = []
  readonly tasks: Row[] = []
  readonly tools: Row[] = []
  /** By name; each `name, size, sha256, media_type`. */
  readonly outputs = new Map<string, Row>()
  /** Open locks by lid, the oldest first. */
  readonly locks = new Map<string, OpenLock>()
  final: Row | undefined
  fatal: Row | undefined
  acknowledged = false
  /** The latest of each progress that has an `id`; its `parent` is the id of what it is a part of. */
  readonly steps = new Map<string, Row>()
  readonly #bounds = new Map<string, Bound>()

  get state(): RunState {
    if (this.fatal) return 'error'
    if (this.final) return 'done'
    return this.locks.size > 0 ? 'locked' : 'pending'
  }

  /** Whether nothing but `manage` events can follow. */
  get over(): boolean {
    return this.fatal !== undefined || this.final !== undefined
  }

  /** Take the next event; one that was taken before changes nothing. */
  apply(event: RunEvent): void {
    if (event.seq <= this.lastSeq) return
    this.lastSeq = event.seq
    this.created ||= event.at
    this.modified = event.at
    const { data } = event
    switch (event.event) {
      case 'progress':
        this.#progress(data)
        break
      case 'inputs':
        this.inputs = data
        break
      case 'version':
        this.version = data
        break
      case 'flow':
        this.flow = data
        break
      case 'config':
        for (const [word, value] of Object.entries(data)) this.#put('config', this.config, word, value)
        break
      case 'agent':
        this.#list('agents', this.agents, data)
        break
      case 'task':
        this.#list('tasks', this.tasks, data)
        break
      case 'tool':
        this.#list('tools', this.tools, data)
        break
      case 'output':
        this.#put('outputs', this.outputs, asText(fieldOf(data, 'name')), data, MAX_HELD, HELD_BYTES)
        break
      case 'final':
        this.final = data
        break
      case 'fatal':
        this.fatal ??= data
        break
      case 'acknowledge':
        this.acknowledged = true
        break
      case 'lock':
      case 'candidate':
      case 'unlock':
      case 'unlock-deny':
      case 'unlock-timeout':
      case 'lock-timeout':
        this.#lock(event)
    }
  }

  #progress(data: Row): void {
    if ((fieldOf(data, 'parent') ?? null) === null) this.progress = data
    const step = fieldOf(data, 'id')
    if (typeof step === 'string') this.#put('steps', this.steps, step, data)
  }

  #lock(event: RunEvent): void {
    const { data } = event
    const said = fieldOf(data, 'lid')
    const lid = said === undefined ? '' : asText(said)
    const known = this.locks.get(lid)
    if (event.event === 'lock') {
      const title = fieldOf(data, 'title')
      const schema = fieldOf(data, 'schema')
      const opened: OpenLock = {
        lid,
        title: title === undefined ? '' : asText(title),
        schema: schema !== undefined && isRow(schema) ? schema : {},
        openedAt: event.at,
        expiresAt: event.at + Math.trunc(seconds(fieldOf(data, 'expires_s'), LOCK_EXPIRES_S) * 1000),
        default: fieldOf(data, 'default') ?? null,
        hasDefault: Object.hasOwn(data, 'default'),
        candidate: undefined,
        candidateAt: 0,
        verdictS: seconds(fieldOf(data, 'verdict_s'), LOCK_VERDICT_S),
        roles: words(fieldOf(data, 'roles')),
        users: words(fieldOf(data, 'users'))
      }
      this.#put('locks', this.locks, lid, opened, MAX_HELD, HELD_BYTES, data)
    } else if (event.event === 'unlock' || event.event === 'lock-timeout') {
      this.locks.delete(lid)
      this.#bounds.get('locks')?.forget(lid)
    } else if (known) {
      const cid = fieldOf(data, 'cid')
      if (event.event === 'candidate')
        this.locks.set(lid, { ...known, candidate: cid === undefined ? '' : asText(cid), candidateAt: event.at })
      else if ((cid ?? undefined) === undefined || cid === known.candidate) this.locks.set(lid, { ...known, candidate: undefined })
    }
  }

  #put<Each>(name: string, held: Map<string, Each>, key: string, value: Each, count = MAX_LISTED, size = LISTED_BYTES, data?: Row): void {
    held.set(key, value) // where it stood: what changes often is not moved about
    for (const dropped of this.#bound(name, count, size).take(key, data ?? value)) held.delete(dropped)
  }

  #list(name: string, rows: Row[], data: Row): void {
    rows.push(data)
    rows.splice(0, this.#bound(name, MAX_LISTED, LISTED_BYTES).take(String(this.lastSeq), data).length)
  }

  #bound(name: string, count: number, size: number): Bound {
    const known = this.#bounds.get(name)
    if (known) return known
    const made = new Bound(count, size)
    this.#bounds.set(name, made)
    return made
  }
}
