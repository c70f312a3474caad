/** Values that travel in calls: those of msgpack without extensions. */

export type Bytes = Uint8Array<ArrayBuffer>

/** Integers that a double cannot hold exactly are bigint. */
export type Value = null | boolean | number | bigint | string | Bytes | Value[] | Row

/** A map; its keys are whatever a node says, `__proto__` too, and are own properties always. */
export interface Row {
  [key: string]: Value
}

/** What may be sent: as `Value`; undefined fields of maps are left out. */
export type Sendable = undefined | null | boolean | number | bigint | string | Uint8Array | readonly Sendable[] | { readonly [key: string]: Sendable }

/** Return whether a value is a map. */
export const isRow = (value: unknown): value is Row =>
  typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Uint8Array)

/** Return the own field of a map, undefined where there is none: never what objects inherit. */
export const fieldOf = (row: Row, key: string): Value | undefined => (Object.hasOwn(row, key) ? row[key] : undefined)

/** Return a text field of a map, or a text to show in its place. */
export const textOf = (row: Row, key: string, otherwise = ''): string => {
  const value = fieldOf(row, key)
  return typeof value === 'string' ? value : otherwise
}

/** Return a number field of a map; a bigint is made a number. */
export const numberOf = (row: Row, key: string): number | undefined => {
  const value = fieldOf(row, key)
  return typeof value === 'number' ? value : typeof value === 'bigint' ? Number(value) : undefined
}
