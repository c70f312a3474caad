/**
 * A JSON Schema (2020-12, as pydantic writes it) as a form sees it. Pure.
 *
 * Schemas come from anybody: references are followed a bounded number of times and only within the schema, and what is
 * not understood becomes a field that takes JSON. Nothing here decides whether a value is right: the node does.
 */
import { fieldOf, isRow, type Row, type Value } from '../../core/value.ts'
import { brief } from '../format.ts'

export type Kind = 'text' | 'number' | 'integer' | 'boolean' | 'choice' | 'choices' | 'list' | 'map' | 'group' | 'file' | 'files' | 'oneOf' | 'constant' | 'json'

/** One place of a form. */
export interface Field {
  kind: Kind
  schema: Row
  title: string
  description: string
  /** What it begins with; undefined for nothing. */
  initial: Value | undefined
  /** Whether null is a value of it. */
  nullable: boolean
  /** Whether what is typed is not to be shown. */
  secret: boolean
  /** Values of `choice` and of the elements of `choices`; the value of `constant`. */
  values: Value[]
  /** Of `group`: names, fields, and whether each is needed. */
  members: { name: string; schema: Row; needed: boolean; group: string }[]
  /** Of `list` and `map`: the schema of each element. */
  element: Row
  /** Of `list`: fixed elements at its begin. */
  prefix: Row[]
  /** Of `oneOf`: the ways. */
  ways: { title: string; schema: Row }[]
  /** `format` of a text. */
  format: string
  /** What `values` are called; as many as they are, or none. */
  labels: string[]
  /** An example of what to enter. */
  placeholder: string
  /** What is said besides the description. */
  help: string
  /** Whether a text has several lines. */
  long: boolean
}

const MAX_STEPS = 32
export const MAX_DEPTH = 16
const MAX_MEMBERS = 500
const MAX_WAYS = 50

const rowAt = (row: Row, name: string): Row | undefined => {
  const value = fieldOf(row, name)
  return value !== undefined && isRow(value) ? value : undefined
}
const rowsAt = (row: Row, name: string): Row[] => {
  const value = fieldOf(row, name)
  return Array.isArray(value) ? value.map(each => (isRow(each) ? each : {})) : []
}
const textAt = (row: Row, name: string): string => {
  const value = fieldOf(row, name)
  return typeof value === 'string' ? value : ''
}

/** Follow `$ref` and single `allOf`; what stands beside a reference wins. */
export function resolve(schema: Row, root: Row): Row {
  let found = schema
  for (let step = 0; step < MAX_STEPS; step += 1) {
    const reference = fieldOf(found, '$ref')
    const all = rowsAt(found, 'allOf')
    if (typeof reference === 'string') {
      const target = pointed(root, reference)
      if (!target) return without(found, '$ref')
      found = { ...target, ...without(found, '$ref') }
    } else if (all.length > 0) {
      found = all.reduce<Row>((joined, each) => merged(joined, resolveOnce(each, root)), without(found, 'allOf'))
    } else return found
  }
  return {}
}

function resolveOnce(schema: Row, root: Row): Row {
  const reference = fieldOf(schema, '$ref')
  return typeof reference === 'string' ? { ...(pointed(root, reference) ?? {}), ...without(schema, '$ref') } : schema
}

function merged(one: Row, other: Row): Row {
  const properties = { ...(rowAt(other, 'properties') ?? {}), ...(rowAt(one, 'properties') ?? {}) }
  const required = [...namesAt(one, 'required'), ...namesAt(other, 'required')]
  return {
    ...other,
    ...one,
    ...(Object.keys(properties).length > 0 && { properties }),
    ...(required.length > 0 && { required })
  }
}

const namesAt = (row: Row, name: string): string[] => {
  const value = fieldOf(row, name)
  return Array.isArray(value) ? value.filter(each => typeof each === 'string') : []
}

function without(row: Row, name: string): Row {
  return Object.fromEntries(Object.entries(row).filter(([key]) => key !== name))
}

function pointed(root: Row, reference: string): Row | undefined {
  if (!reference.startsWith('#')) return undefined
  let found: Value | undefined = root
  for (const part of reference.slice(1).split('/').slice(1)) {
    if (found === undefined || !isRow(found)) return undefined
    found = fieldOf(found, part.replaceAll('~1', '/').replaceAll('~0', '~'))
  }
  return found !== undefined && isRow(found) ? found : undefined
}

const isNull = (schema: Row): boolean => fieldOf(schema, 'type') === 'null' || fieldOf(schema, 'const') === null

/** Read a schema as a field. `name` stands where there is no title. */
export function fieldFor(given: Row, root: Row, name: string): Field {
  let schema = resolve(given, root)
  let nullable = false
  const branches = [...rowsAt(schema, 'anyOf'), ...rowsAt(schema, 'oneOf')].slice(0, MAX_WAYS).map(each => resolve(each, root))
  const others = branches.filter(each => !isNull(each))
  if (branches.length > others.length) nullable = true
  const [only] = others
  if (branches.length > 0 && others.length === 1 && only) {
    const outer = without(without(schema, 'anyOf'), 'oneOf')
    schema = { ...resolve(only, root), ...outer }
  }
  const types = fieldOf(schema, 'type')
  let type = typeof types === 'string' ? types : ''
  if (Array.isArray(types)) {
    const left = types.filter(each => each !== 'null')
    nullable ||= left.length < types.length
    type = left.length === 1 && typeof left[0] === 'string' ? left[0] : ''
  }
  const values = fieldOf(schema, 'enum')
  const field: Field = {
    kind: 'json',
    schema,
    title: textAt(schema, 'title') || name,
    description: textAt(schema, 'description'),
    initial: Object.hasOwn(schema, 'default') ? fieldOf(schema, 'default') : undefined,
    nullable: nullable || type === 'null',
    secret: fieldOf(schema, 'writeOnly') === true || fieldOf(schema, 'format') === 'password',
    values: Array.isArray(values) ? values.filter(each => each !== null) : [],
    members: [],
    element: {},
    prefix: [],
    ways: [],
    format: textAt(schema, 'format'),
    labels: [],
    placeholder: textAt(schema, 'placeholder') || textAt(schema, 'ui:placeholder'),
    help: textAt(schema, 'help') || textAt(schema, 'ui:help'),
    long: textAt(schema, 'format') === 'textarea' || textAt(schema, 'ui:widget') === 'textarea'
  }
  if (Array.isArray(values)) field.labels = labelsOf(schema, values)
  if (Array.isArray(values) && values.includes(null)) field.nullable = true
  if (Object.hasOwn(schema, 'const')) {
    field.kind = 'constant'
    field.values = [fieldOf(schema, 'const') ?? null]
  } else if (others.length > 1 && others.every(each => Object.hasOwn(each, 'const'))) {
    field.kind = 'choice'
    field.values = others.map(each => fieldOf(each, 'const') ?? null)
    field.labels = others.map(each => textAt(each, 'title') || brief(fieldOf(each, 'const') ?? null, 120))
  } else if (others.length > 1) {
    field.kind = 'oneOf'
    field.ways = others.map((each, index) => ({ title: textAt(each, 'title') || wayTitle(each, index), schema: each }))
  } else if (Array.isArray(values)) field.kind = 'choice'
  else byType(field, type || guessed(schema), root)
  return field
}

/** What the values of an `enum` are called (`enumNames`), those of them that are not null. */
function labelsOf(schema: Row, values: Value[]): string[] {
  const names = fieldOf(schema, 'enumNames')
  if (!Array.isArray(names) || names.length !== values.length) return []
  return names.flatMap((name, index) => (values[index] === null ? [] : [typeof name === 'string' ? name : brief(name, 120)]))
}

/** The place of a field among the others; those without `propertyOrder` stay behind, as they stand. */
function orderOf(schema: Value): number {
  const place = isRow(schema) ? fieldOf(schema, 'propertyOrder') : undefined
  return typeof place === 'number' ? place : Number.POSITIVE_INFINITY
}

/** The heading under which a field stands with others; empty for none. */
function groupOf(schema: Value): string {
  return isRow(schema) ? (textAt(schema, 'group') || textAt(schema, 'ui:group')).trim() : ''
}

function wayTitle(schema: Row, index: number): string {
  const type = fieldOf(schema, 'type')
  return typeof type === 'string' ? type : `variant ${index + 1}`
}

function guessed(schema: Row): string {
  if (rowAt(schema, 'properties') ?? fieldOf(schema, 'additionalProperties')) return 'object'
  if (rowAt(schema, 'items') ?? fieldOf(schema, 'prefixItems')) return 'array'
  return ''
}

function byType(field: Field, type: string, root: Row): void {
  const { schema } = field
  switch (type) {
    case 'string':
      field.kind = field.format === 'file' ? 'file' : 'text'
      break
    case 'integer':
    case 'number':
    case 'boolean':
      field.kind = type
      break
    case 'array': {
      const element = resolve(rowAt(schema, 'items') ?? {}, root)
      const choices = fieldOf(element, 'enum')
      field.element = rowAt(schema, 'items') ?? {}
      field.prefix = rowsAt(schema, 'prefixItems')
      const isFiles = field.prefix.length === 0 && fieldOf(element, 'format') === 'file'
      field.kind = isFiles ? 'files' : Array.isArray(choices) && choices.length <= 200 ? 'choices' : 'list'
      if (Array.isArray(choices)) {
        field.values = choices
        field.labels = labelsOf(element, choices)
      }
      break
    }
    case 'object': {
      const properties = rowAt(schema, 'properties') ?? {}
      const required = new Set(namesAt(schema, 'required'))
      const more = fieldOf(schema, 'additionalProperties')
      const ordered = Object.entries(properties)
        .map(([name, inner]): [string, Value] => [name, inner ?? null])
        .sort((one, other) => (orderOf(one[1]) === orderOf(other[1]) ? 0 : orderOf(one[1]) - orderOf(other[1])))
        .slice(0, MAX_MEMBERS)
        .map(([name, inner]) => ({ name, schema: isRow(inner) ? inner : {}, needed: required.has(name), group: groupOf(inner) }))
      const first = new Map<string, number>()
      ordered.forEach(({ group }, place) => first.set(group, first.get(group) ?? place))
      const places = ordered.map(({ group }, place) => (group === '' ? place : (first.get(group) ?? place)))
      field.members = ordered.map((member, index) => ({ member, place: places[index] ?? index })).sort((one, other) => one.place - other.place).map(({ member }) => member)
      if (field.members.length > 0) field.kind = 'group'
      else if (more === false) field.kind = 'group'
      else {
        field.kind = 'map'
        field.element = more !== undefined && isRow(more) ? more : {}
      }
    }
  }
}

/** Return what a field begins with: its default, or what is empty. Undefined is left out of what is sent. */
export function beginOf(schema: Row, root: Row, needed: boolean, depth = 0): Value | undefined {
  const field = fieldFor(schema, root, '')
  if (field.initial !== undefined) return field.initial
  if (depth > MAX_DEPTH) return undefined
  switch (field.kind) {
    case 'constant':
      return field.values[0]
    case 'group': {
      if (!needed && depth > 0) return undefined
      const made: Row = {}
      for (const member of field.members) {
        const value = beginOf(member.schema, root, member.needed, depth + 1)
        if (value !== undefined) put(made, member.name, value)
      }
      return made
    }
    case 'choices':
    case 'files':
    case 'list':
      return needed ? [] : undefined
    case 'map':
      return needed ? {} : undefined
    case 'boolean':
      return needed ? false : undefined
    default:
      return undefined
  }
}

/** Set an own field of a map, whatever its name. */
export function put(row: Row, name: string, value: Value | undefined): void {
  if (value === undefined) Reflect.deleteProperty(row, name)
  else Object.defineProperty(row, name, { value, enumerable: true, configurable: true, writable: true })
}

/** Read a number as a person types it: integers of any length stay exact. Undefined when it is not a number. */
export function readNumber(text: string, whole: boolean): number | bigint | undefined {
  const trimmed = text.trim()
  if (/^[+-]?\d{1,400}$/.test(trimmed)) {
    const exact = BigInt(trimmed.replace(/^\+/, ''))
    return exact >= BigInt(Number.MIN_SAFE_INTEGER) && exact <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(exact) : exact
  }
  if (whole || !/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(trimmed)) return undefined
  const number = Number(trimmed)
  return Number.isFinite(number) ? number : undefined
}

/** Text of a field that cannot be sent, such as `x` where a number goes. It stays in the form until it can. */
export class Unread {
  constructor(
    readonly text: string,
    readonly why: string
  ) {}
}

/** What the form holds while it is filled in. */
export type Draft = Value | Unread | undefined | Draft[] | { [key: string]: Draft }

/**
 * Find what is wrong without asking the node: needed fields that are empty, and texts that are no numbers. `needed` says
 * that a field is needed; without it all may be empty.
 */
export function faultsOf(schema: Row, root: Row, draft: Draft, needed: string | undefined): Map<string, string> {
  const faults = new Map<string, string>()
  const look = (each: Row, value: Draft, at: string, must: boolean, depth: number): void => {
    if (value instanceof Unread) {
      faults.set(at, value.why)
      return
    }
    if (depth > MAX_DEPTH) return
    const field = fieldFor(each, root, '')
    if (value === undefined || (value === '' && must && field.kind !== 'text')) {
      if (must && needed !== undefined) faults.set(at, needed)
      return
    }
    if (field.kind === 'group' && isRow(value))
      for (const member of field.members)
        look(member.schema, fieldOf(value, member.name), `${at}/${member.name.replaceAll('~', '~0').replaceAll('/', '~1')}`, member.needed, depth + 1)
    else if (Array.isArray(value))
      value.forEach((one, index) => look(field.prefix[index] ?? field.element, one, `${at}/${index}`, false, depth + 1))
    else if (field.kind === 'map' && isRow(value))
      for (const [name, one] of Object.entries(value)) look(field.element, one, `${at}/${name}`, false, depth + 1)
    else if (field.kind === 'oneOf') findUnread(value, at, faults, depth)
  }
  look(schema, draft, '', true, 0)
  return faults
}

function findUnread(value: Draft, at: string, faults: Map<string, string>, depth: number): void {
  if (value instanceof Unread) faults.set(at, value.why)
  else if (depth > MAX_DEPTH || value === null || typeof value !== 'object' || value instanceof Uint8Array) return
  else if (Array.isArray(value)) value.forEach((each: Draft, index) => findUnread(each, `${at}/${index}`, faults, depth + 1))
  else for (const [name, each] of Object.entries(value)) findUnread(each, `${at}/${name}`, faults, depth + 1)
}

/** Return what a draft without faults sends: places without a value are left out. */
export function valueOf(draft: Draft): Value | undefined {
  if (draft instanceof Unread) return undefined
  if (Array.isArray(draft)) return draft.map(each => valueOf(each) ?? null)
  if (draft !== undefined && draft !== null && typeof draft === 'object' && !(draft instanceof Uint8Array)) {
    const made: Row = {}
    for (const [name, each] of Object.entries(draft)) put(made, name, valueOf(each))
    return made
  }
  return draft
}
