/** What a form begins with: the inputs of an earlier run, or what was pasted. Pure. */
import { isRow, type Row, type Value } from '../../core/value.ts'
import { beginOf } from '../form/schema.ts'

/** Stands in the place of a secret wherever inputs are shown. */
const MASK = '••••••••'

const MAX_DEPTH = 64

/** Return whether a value has a secret in it, which nobody keeps. */
function isMasked(value: Value, depth = 0): boolean {
  if (value === MASK) return true
  if (depth > MAX_DEPTH) return true
  if (Array.isArray(value)) return value.some(each => isMasked(each, depth + 1))
  return isRow(value) && Object.values(value).some(each => isMasked(each, depth + 1))
}

/** Return the inputs of a run without those that hold secrets: they are to be given again. */
export function withoutSecrets(inputs: Row): Row {
  return Object.fromEntries(Object.entries(inputs).filter(([, value]) => !isMasked(value)))
}

/** Return what a form begins with that was filled in in part: the rest as it begins else. */
export function completed(schema: Row, inputs: Row): Row {
  const begun = beginOf(schema, schema, true)
  return { ...(begun !== undefined && isRow(begun) ? begun : {}), ...inputs }
}

/** Read inputs that were pasted. @throws SyntaxError when it is not JSON, or no object. */
export function pasted(text: string): Row {
  const value = JSON.parse(text) as Value
  if (!isRow(value)) throw new SyntaxError('not an object')
  return withoutSecrets(value)
}
