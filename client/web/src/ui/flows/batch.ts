/** A batch that this tab has begun: launched again after a reload, none of its rows is launched twice. */
import { sha256 } from '@noble/hashes/sha2.js'
import { hex } from '../../core/bytes.ts'
import { encode } from '../../core/msgpack.ts'
import { fieldOf, isRow, type Row } from '../../core/value.ts'
import { keep, keptJson } from '../storage.ts'
import type { InputRow } from './rows.ts'

const NAME = 'kodo.batch'
/** Nodes know the key of a launch for 24 hours. */
const LIFE_MS = 23 * 3_600_000

export interface Batch {
  /** Its rows have keys that begin with it. */
  id: string
  tag: string
}

/** Return what stands for rows of a flow. It says nothing of what is in them, since nothing of that is kept. */
const digestOf = (flow: string, rows: readonly InputRow[]): string => hex(sha256(encode([flow, ...rows.map(row => row.inputs)], 64 << 20)))

/** Of a flow that takes secrets nothing is kept, not even a hash. */
const isPrivate = (schema: Row): boolean => /"writeOnly":true|"format":"password"/.test(JSON.stringify(schema, (_, value: unknown) => (typeof value === 'bigint' ? String(value) : value)))

/** Return the batch in which this tab began to launch these very rows of a flow. */
export function begunBatch(flow: string, schema: Row, rows: readonly InputRow[], now: number): Batch | undefined {
  const told = keptJson(NAME, true)
  if (rows.length === 0 || told === undefined || !isRow(told) || isPrivate(schema)) return undefined
  const kept = told
  const [id, tag, at] = [fieldOf(kept, 'id'), fieldOf(kept, 'tag'), fieldOf(kept, 'at')]
  if (typeof id !== 'string' || typeof tag !== 'string' || typeof at !== 'number' || now - at > LIFE_MS) return undefined
  return fieldOf(kept, 'digest') === digestOf(flow, rows) ? { id, tag } : undefined
}

/** Keep that a batch was begun, for this tab. */
export function keepBatch(flow: string, schema: Row, rows: readonly InputRow[], batch: Batch, now: number): void {
  if (!isPrivate(schema)) keep(NAME, JSON.stringify({ ...batch, at: now, digest: digestOf(flow, rows) }), true)
}
