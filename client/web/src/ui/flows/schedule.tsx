/** Scheduling a flow: its node launches it at times, while the page is closed. */
import { useId, useState } from 'preact/hooks'
import { fieldOf, type Row, type Value } from '../../core/value.ts'
import { chosenNode } from '../app.ts'
import { remember } from '../book.ts'
import { exact, isTime, oneLine } from '../format.ts'
import { Dialog, Failure } from '../parts/parts.tsx'
import { paths } from '../router.ts'
import { say } from '../texts.ts'
import { type Choice, DAYS, KINDS, timingOf, UNITS } from './timing.ts'

const text = say.schedule

interface ScheduleProps {
  peerId: string
  path: string
  name: string
  inputs: Value
  close: () => void
}

export function ScheduleDialog({ peerId, path, name, inputs, close }: ScheduleProps) {
  const [choice, setChoice] = useState<Choice>(() => ({
    kind: 'daily',
    time: '07:00',
    day: 'MON',
    count: '1',
    unit: 'hours',
    at: '',
    cron: '0 7 * * MON-FRI',
    tz: Intl.DateTimeFormat().resolvedOptions().timeZone || 'UTC'
  }))
  const [missed, setMissed] = useState('once')
  const [overlap, setOverlap] = useState('skip')
  const [made, setMade] = useState<Row | undefined>()
  const [error, setError] = useState<unknown>()
  const [busy, setBusy] = useState(false)
  const { kind } = choice
  const timing = timingOf(choice)
  const isZoned = kind !== 'every' && kind !== 'once'
  const set = (change: Partial<Choice>) => setChoice({ ...choice, ...change })
  const make = async () => {
    if (!timing) return
    setBusy(true)
    setError(undefined)
    try {
      const node = await chosenNode(peerId)
      setMade(await node.ask('schedule.add', { path, inputs, ...timing, missed, overlap }, { repeat: false }))
      remember(peerId, '', [], { used: true })
    } catch (failed) {
      setError(failed)
    } finally {
      setBusy(false)
    }
  }
  return (
    <Dialog title={text.title(oneLine(name, 80))} close={close}>
      {made ? (
        <div class="stack" role="status">
          <p>{text.made}</p>
          <Times row={made} />
          <div class="row">
            <a class="button" href={paths.schedules}>
              {text.listTitle}
            </a>
            <button type="button" class="button" onClick={close}>
              {say.close}
            </button>
          </div>
        </div>
      ) : (
        <form
          class="form"
          onSubmit={event => {
            event.preventDefault()
            void make()
          }}
        >
          <p class="muted">{text.text}</p>
          <Select label={text.when} value={kind} set={each => set({ kind: each })} options={KINDS.map(each => [each, text.kinds[each]])} />
          {kind === 'weekly' && <Select label={text.day} value={choice.day} set={day => set({ day })} options={DAYS.map(each => [each, text.days[each] ?? each])} />}
          {(kind === 'daily' || kind === 'weekdays' || kind === 'weekly') && <Entry label={text.time} type="time" value={choice.time} set={time => set({ time })} />}
          {kind === 'every' && (
            <div class="row">
              <Entry label={text.count} type="text" value={choice.count} set={count => set({ count })} />
              <Select label={text.unit} value={choice.unit} set={unit => set({ unit })} options={(Object.keys(UNITS) as (keyof typeof UNITS)[]).map(each => [each, text.units[each]])} />
            </div>
          )}
          {kind === 'once' && <Entry label={text.at} type="datetime-local" value={choice.at} set={at => set({ at })} />}
          {kind === 'cron' && <Entry label={text.cron} type="text" about={text.cronAbout} value={choice.cron} set={cron => set({ cron })} />}
          {isZoned && <Entry label={text.tz} type="text" value={choice.tz} set={tz => set({ tz: tz.trim() })} />}
          <Select label={text.missed} value={missed} set={setMissed} options={Object.entries(text.misses)} />
          <Select label={text.overlap} value={overlap} set={setOverlap} options={Object.entries(text.overlaps)} />
          {error !== undefined && <Failure error={error} />}
          <div class="row">
            <button type="submit" class="button main" disabled={busy || !timing}>
              {text.make}
            </button>
            <button type="button" class="button" onClick={close}>
              {say.cancel}
            </button>
          </div>
        </form>
      )}
    </Dialog>
  )
}

/** The next times of a schedule. */
export function Times({ row }: { row: Row }) {
  const next = fieldOf(row, 'next')
  const times = Array.isArray(next) ? next.filter(isTime) : []
  if (times.length === 0) return <p>{text.never}</p>
  return (
    <ul class="nowrap">
      {times.map(at => (
        <li key={at}>{exact(at)}</li>
      ))}
    </ul>
  )
}

function Select<Option extends string>(props: { label: string; value: Option; set: (value: Option) => void; options: readonly (readonly [Option, string])[] }) {
  const id = useId()
  return (
    <div class="field">
      <label for={id}>{props.label}</label>
      <select id={id} class="input" value={props.value} onChange={event => props.set(event.currentTarget.value as Option)}>
        {props.options.map(([value, word]) => (
          <option key={value} value={value}>
            {word}
          </option>
        ))}
      </select>
    </div>
  )
}

function Entry({ label, type, about, value, set }: { label: string; type: 'text' | 'time' | 'datetime-local'; about?: string; value: string; set: (value: string) => void }) {
  const id = useId()
  const given = {
    id,
    class: 'input short',
    autocomplete: 'off' as const,
    spellcheck: false,
    'aria-describedby': about ? `${id}-about` : undefined,
    value,
    onInput: (event: { currentTarget: HTMLInputElement }) => set(event.currentTarget.value)
  }
  return (
    <div class="field">
      <label for={id}>{label}</label>
      {type === 'text' ? <input {...given} type="text" /> : <input {...given} type={type} />}
      {about && (
        <p id={`${id}-about`} class="about">
          {about}
        </p>
      )}
    </div>
  )
}
