/** Values as people read them. Pure, but for the current language. */
import { isRow, type Row, type Value } from '../core/value.ts'

/** Stands between facts of one line. It stays with what is before it, so that no line begins with one. */
export const DOT = '\u00a0· '

/** Return facts as one line; those that are empty are left out. */
export const dotted = (...facts: readonly (string | false | undefined)[]): string => facts.filter(Boolean).join(DOT)

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB']

/** Return a size, such as `1.4 MiB`. */
export function bytes(size: number | undefined): string {
  if (size === undefined || !Number.isFinite(size)) return '?'
  let unit = 0
  let left = size
  while (left >= 1024 && unit < UNITS.length - 1) {
    left /= 1024
    unit += 1
  }
  return `${unit === 0 ? left : left.toFixed(left < 10 ? 1 : 0)} ${UNITS[unit] ?? ''}`
}

/** Return a duration, such as `4.2 s` or `3 min 5 s`. */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds) || seconds < 0) return '?'
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`
  const whole = Math.round(seconds)
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`
  if (whole < 86_400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`
  return `${Math.floor(whole / 86_400)} d ${Math.floor((whole % 86_400) / 3600)} h`
}

const STEPS: readonly [number, Intl.RelativeTimeFormatUnit][] = [
  [60, 'second'],
  [60, 'minute'],
  [24, 'hour'],
  [30, 'day'],
  [12, 'month'],
  [Infinity, 'year']
]
const relative = new Intl.RelativeTimeFormat('en', { numeric: 'auto' })

/** Return a time as seen from another, such as `3 minutes ago`; both ms UTC. */
export function ago(at: number, now: number): string {
  let left = (at - now) / 1000
  if (Math.abs(left) < 5) return 'now'
  for (const [step, unit] of STEPS) {
    if (Math.abs(left) < step) return relative.format(Math.round(left), unit)
    left /= step
  }
  return '?'
}

/** Return whether a number of ms can be a time. */
export const isTime = (at: unknown): at is number => typeof at === 'number' && Number.isFinite(at) && Math.abs(at) < 8.64e15

/** Return the exact time. */
export const exact = (at: number): string => new Date(at).toLocaleString('en-GB', { dateStyle: 'medium', timeStyle: 'medium' })

/** Return the time of a day with milliseconds, as events show it. */
export function clock(at: number): string {
  if (!isTime(at)) return '?'
  const date = new Date(at)
  const two = (number: number) => String(number).padStart(2, '0')
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${String(date.getMilliseconds()).padStart(3, '0')}`
}

/** Return a value on one line; integers digit for digit. At most about `most` characters. */
export function brief(value: Value | undefined, most = 200): string {
  if (value === undefined) return ''
  if (typeof value === 'string') return oneLine(value, most)
  if (value === null || typeof value === 'boolean' || typeof value === 'bigint') return String(value)
  if (typeof value === 'number') return Object.is(value, -0) ? '-0' : String(value)
  if (value instanceof Uint8Array) return `${value.length} bytes`
  let text = ''
  const inner = Array.isArray(value) ? value.map(each => ['', each] as const) : Object.entries(value)
  for (const [key, each] of inner) {
    if (text.length > most) break
    text += (text && ', ') + (key && `${oneLine(key, 60)} `) + brief(each, most - text.length)
  }
  const [open, close] = Array.isArray(value) ? ['[', ']'] : ['{', '}']
  return `${open}${text.length > most ? `${text.slice(0, most)}…` : text}${close}`
}

/** Return a map as names and values, such as `i 3 text hello`. */
export function pairs(row: Row, most = 240): string {
  let text = ''
  for (const [key, value] of Object.entries(row)) {
    if (text.length > most) return `${text.slice(0, most)}…`
    text += `${text && '  '}${oneLine(key, 60)} ${brief(value, most)}`
  }
  return text
}

/** Return a text without line breaks and characters that turn or hide what stands around it. */
export function oneLine(text: string, most: number): string {
  const cut = text.length > most ? `${text.slice(0, most)}…` : text
   
  return cut.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, ' ').replace(/[\u202a-\u202e\u2066-\u2069\u200e\u200f\u061c]/g, '')
}

/** Return what a call sends or a node said as JSON text, integers digit for digit. */
export function json(value: Value | undefined, indent = 2): string {
  const pad = (depth: number) => (indent > 0 ? `\n${' '.repeat(indent * depth)}` : '')
  const write = (each: Value | undefined, depth: number): string => {
    if (typeof each === 'bigint') return String(each)
    if (each instanceof Uint8Array) return JSON.stringify(`${each.length} bytes`)
    if (Array.isArray(each))
      return each.length > 0 ? `[${each.map(one => pad(depth + 1) + write(one, depth + 1)).join(',')}${pad(depth)}]` : '[]'
    if (each !== undefined && isRow(each)) {
      const inner = Object.entries(each).map(([key, one]) => `${pad(depth + 1)}${JSON.stringify(key)}:${indent > 0 ? ' ' : ''}${write(one, depth + 1)}`)
      return inner.length > 0 ? `{${inner.join(',')}${pad(depth)}}` : '{}'
    }
    return JSON.stringify(each ?? null)
  }
  return write(value, 0)
}
