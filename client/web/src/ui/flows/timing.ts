/** When a schedule is due: what a person chooses, as `schedule.add` takes it. Pure. */
import { fieldOf, numberOf, textOf, type Row } from '../../core/value.ts'
import { duration } from '../format.ts'
import { say } from '../texts.ts'

const text = say.schedule

export const KINDS = ['daily', 'weekdays', 'weekly', 'every', 'once', 'cron'] as const
export const DAYS = ['MON', 'TUE', 'WED', 'THU', 'FRI', 'SAT', 'SUN'] as const
export const UNITS = { minutes: 60, hours: 3600, days: 86_400 } as const

export interface Choice {
  kind: (typeof KINDS)[number]
  /** `07:30`, for daily, weekdays and weekly. */
  time: string
  day: (typeof DAYS)[number]
  count: string
  unit: keyof typeof UNITS
  /** As a field for date and time has it, in the browser's own time zone. */
  at: string
  cron: string
  /** IANA name of the time zone of `time` and `cron`. */
  tz: string
}

const MIN_S = 60
const MAX_S = 366 * 86_400

export type Timing = { cron: string; tz: string } | { every_s: number } | { at: number; tz: string }

/** Return a choice as args of `schedule.add`, undefined while it is none. */
export function timingOf(choice: Choice): Timing | undefined {
  const { kind, tz } = choice
  if (kind === 'every') {
    const seconds = /^\d{1,6}$/.test(choice.count.trim()) ? Number(choice.count) * UNITS[choice.unit] : 0
    return seconds >= MIN_S && seconds <= MAX_S ? { every_s: seconds } : undefined
  }
  if (kind === 'once') {
    const at = new Date(choice.at).getTime()
    return Number.isNaN(at) ? undefined : { at, tz }
  }
  if (kind === 'cron') return choice.cron.trim() === '' ? undefined : { cron: choice.cron.trim(), tz }
  const [, hours, minutes] = /^(\d\d):(\d\d)/.exec(choice.time) ?? []
  if (hours === undefined || minutes === undefined) return undefined
  const days = kind === 'daily' ? '*' : kind === 'weekdays' ? 'MON-FRI' : choice.day
  return { cron: `${Number(minutes)} ${Number(hours)} * * ${days}`, tz }
}

/** Return when a schedule is due, as a row of `schedule.list` says it. */
export function whenOf(row: Row): string {
  const every = numberOf(row, 'every_s')
  if (every !== undefined) {
    const [unit, length] = Object.entries(UNITS).findLast(([, seconds]) => every % seconds === 0) ?? ['', 0]
    return text.every(length > 0 ? text.counted[unit as keyof typeof UNITS](every / length) : duration(every))
  }
  const cron = fieldOf(row, 'cron')
  if (typeof cron !== 'string') return text.kinds.once
  const tz = textOf(row, 'tz')
  const [, minutes, hours, days] = /^(\d{1,2}) (\d{1,2}) \* \* (\*|MON-FRI|MON|TUE|WED|THU|FRI|SAT|SUN)$/.exec(cron) ?? []
  if (minutes === undefined || hours === undefined || days === undefined) return `${cron} (${tz})`
  const time = `${hours.padStart(2, '0')}:${minutes.padStart(2, '0')}`
  const on = days === '*' ? text.kinds.daily : days === 'MON-FRI' ? text.kinds.weekdays : text.on(text.days[days] ?? days)
  return `${on}, ${time} (${tz})`
}
