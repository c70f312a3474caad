/** Rows of inputs, pasted or from a file: a run each. Pure. */
import { fieldOf, isRow, type Row, type Value } from '../../core/value.ts'
import { faultsOf, fieldFor, put, readNumber, resolve, Unread, valueOf, type Draft } from '../form/schema.ts'
import { readCsv } from '../show/csv.ts'
import { say } from '../texts.ts'

const text = say.many

export const MAX_ROWS = 10_000
export const MAX_CHARACTERS = 8 << 20
const MAX_PARTS = 16

export interface InputRow {
  /** From 1. */
  number: number
  /** What the row says, for showing. */
  own: Row
  /** What is launched: with what holds for all rows. */
  inputs: Row
  /** Why it cannot be launched; empty where it can. */
  fault: string
}

/**
 * Read rows: separated values with the names of inputs as their head (`place.city` for a field of one), a JSON array of
 * objects, or a JSON object a line. Cells are read by the schema; empty ones are left out.
 * @throws SyntaxError: there are no rows in it, or too many.
 */
export function readRows(given: string, schema: Row, common: Row): InputRow[] {
  const trimmed = given.replace(/^\ufeff/, '').trim()
  if (trimmed === '') return []
  if (trimmed.length > MAX_CHARACTERS) throw new SyntaxError(text.tooLong)
  const rows = /^[[{]/.test(trimmed) ? jsonRows(trimmed) : csvRows(trimmed, schema)
  if (rows.length > MAX_ROWS) throw new SyntaxError(text.tooMany(MAX_ROWS))
  if (rows.length === 0) throw new SyntaxError(text.noRows)
  const names = new Set(fieldFor(schema, schema, '').members.map(member => member.name))
  const isOpen = fieldOf(resolve(schema, schema), 'additionalProperties') === true
  return rows.map(([own, fault], index) => {
    const row = { number: index + 1, own: shownOf(own), inputs: {}, fault }
    if (fault) return row
    const unknown = Object.keys(own).find(name => !isOpen && !names.has(name))
    if (unknown !== undefined) return { ...row, fault: text.unknown(unknown) }
    const draft = { ...common, ...own }
    const [first] = faultsOf(schema, schema, draft, say.needed)
    if (first) return { ...row, fault: `${first[0].slice(1)}: ${first[1]}` }
    const inputs = valueOf(draft)
    return { ...row, inputs: inputs !== undefined && isRow(inputs) ? inputs : {} }
  })
}

/** What is shown of a row: what cannot be read as it was typed. */
function shownOf(own: { [key: string]: Draft }): Row {
  const shown: Row = {}
  for (const [name, value] of Object.entries(own)) put(shown, name, value instanceof Unread ? value.text : valueOf(value))
  return shown
}

type Read = [own: { [key: string]: Draft }, fault: string]

function jsonRows(given: string): Read[] {
  const asRow = (value: unknown): Read => (isRow(value) ? [value, ''] : [{}, text.noObject])
  let whole: unknown
  try {
    whole = JSON.parse(given)
  } catch {
    return given
      .split('\n', MAX_ROWS * 2)
      .filter(line => line.trim() !== '')
      .map(line => {
        try {
          return asRow(JSON.parse(line))
        } catch {
          return [{}, say.form.noJson]
        }
      })
  }
  return Array.isArray(whole) ? whole.map(asRow) : [asRow(whole)]
}

function csvRows(given: string, schema: Row): Read[] {
  const [head = [], ...lines] = readCsv(given, MAX_ROWS + 2)
  const names = head.map(name => name.trim())
  if (names.includes('')) throw new SyntaxError(text.noName)
  return lines.map(cells => {
    if (cells.length !== names.length) return [{}, text.cells(cells.length, names.length)]
    const row: { [key: string]: Draft } = {}
    names.forEach((name, column) => {
      const cell = (cells[column] ?? '').trim()
      if (cell !== '') place(row, name, cell, schema)
    })
    return [row, '']
  })
}

/** Put a cell where its name says: into an input, or a field of one. */
function place(row: { [key: string]: Draft }, name: string, cell: string, schema: Row): void {
  const isOwn = fieldFor(schema, schema, '').members.some(member => member.name === name)
  const parts = isOwn ? [name] : name.split('.', MAX_PARTS)
  let [within, at] = [row, schema]
  for (const [index, part] of parts.entries()) {
    at = fieldFor(at, schema, '').members.find(member => member.name === part)?.schema ?? {}
    if (index === parts.length - 1) put(within as Row, part, read(cell, at, schema) as Value)
    else {
      const before = Object.hasOwn(within, part) ? within[part] : undefined
      const inner = before !== undefined && typeof before === 'object' && before !== null && !Array.isArray(before) && !(before instanceof Unread) ? (before as { [key: string]: Draft }) : {}
      put(within as Row, part, inner as Value)
      within = inner
    }
  }
}

const YES = ['yes', 'true', '1', 'on']
const NO = ['no', 'false', '0', 'off']

/** Read a cell as its field takes it. */
function read(cell: string, schema: Row, root: Row): Draft {
  const field = fieldFor(schema, root, '')
  switch (field.kind) {
    case 'text':
    case 'file':
      return cell
    case 'integer':
    case 'number':
      return readNumber(cell, field.kind === 'integer') ?? new Unread(cell, field.kind === 'integer' ? say.form.noInteger : say.form.noNumber)
    case 'boolean': {
      const word = cell.toLowerCase()
      return YES.includes(word) ? true : NO.includes(word) ? false : new Unread(cell, text.noBoolean)
    }
    case 'choice': {
      const chosen = field.values.findIndex((value, index) => cell === (typeof value === 'string' ? value : JSON.stringify(value)) || cell === field.labels[index])
      return chosen >= 0 ? field.values[chosen] : cell
    }
    case 'choices':
    case 'list':
      if (!cell.startsWith('[')) return cell.split(',').map(each => read(each.trim(), field.element, root))
  }
  try {
    return JSON.parse(cell) as Value
  } catch {
    return field.kind === 'oneOf' || field.kind === 'json' ? cell : new Unread(cell, say.form.noJson)
  }
}

/** Return the columns of rows: the names that they have, in the order in which they come. */
export function columnsOf(rows: readonly InputRow[], most: number): string[] {
  const names = new Set<string>()
  for (const row of rows) {
    for (const name of Object.keys(row.own)) names.add(name)
    if (names.size >= most) break
  }
  return [...names].slice(0, most)
}

/** Return why a row was refused by its node: which field, and why. */
export function refusalOf(places: ReadonlyMap<string, string>, otherwise: string): string {
  const [first] = places
  return first ? `${first[0].slice(1)}: ${first[1]}` : otherwise
}

