/** The golden vectors that Python's tests read too. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fromHex } from '../src/core/bytes.ts'
import type { Value } from '../src/core/value.ts'

/** Read one file of vectors; numbers over 2**53 are written as `{"$int": text}`, bytes as `{"$bytes": hex}`. */
// eslint-disable-next-line @typescript-eslint/no-unnecessary-type-parameters -- says what is in the file
export function vectors<Shape>(name: string): Shape {
  return JSON.parse(readFileSync(join(process.env.VECTORS!, `${name}.json`), 'utf8')) as Shape
}

/** Return what a value of a vector stands for. */
export function revive(value: unknown): Value {
  if (Array.isArray(value)) return value.map(revive)
  // Python reads 1e300 as a float; what 64 bits hold was written as an integer.
  if (typeof value === 'number' && Number.isInteger(value) && !Number.isSafeInteger(value) && Math.abs(value) < 2 ** 64) return BigInt(value)
  if (typeof value !== 'object' || value === null) return value as Value
  const entries = Object.entries(value)
  const [first] = entries
  if (first?.[0] === '$bytes') return fromHex(first[1] as string)
  if (first?.[0] === '$int') return BigInt(first[1] as string)
  const map = {}
  for (const [key, each] of entries)
    Object.defineProperty(map, key, { value: revive(each), enumerable: true, configurable: true, writable: true })
  return map
}
