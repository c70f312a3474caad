/** The region *Events*: a timeline of any length, filtered by kind and text, with what is in an event shown below. */
import { useMemo, useRef, useState } from 'preact/hooks'
import type { FollowedRun, RunEvent } from '../../net/api.ts'
import { VirtualList } from '../parts/virtual.tsx'
import { clock, exact, isTime, json, oneLine, pairs } from '../format.ts'
import { Tree } from '../show/data.tsx'
import { say } from '../texts.ts'

const text = say.run

const KINDS: Record<string, string> = {
  progress: 'progress',
  result: 'result',
  'result-error': 'result',
  final: 'result',
  fatal: 'result',
  action: 'action',
  'action-error': 'action',
  task: 'action',
  log: 'log',
  stdout: 'log',
  stderr: 'log',
  lock: 'lock',
  candidate: 'lock',
  unlock: 'lock',
  'unlock-deny': 'lock',
  'unlock-timeout': 'lock',
  'lock-timeout': 'lock',
  output: 'output'
}
const BAD = new Set(['fatal', 'result-error', 'action-error', 'unlock-deny', 'stderr'])
const ROW_HEIGHT = 32
const MAX_LINE = 240

const kindOf = (event: RunEvent): string => KINDS[event.event] ?? 'other'

/** What an event says, on one line; of a question without its form, of a share with its time as one. */
function lineOf(event: RunEvent): string {
  const until = event.data['expires_at']
  if (event.event === 'share' && isTime(until)) {
    return pairs({ ...event.data, expires_at: exact(until) }, MAX_LINE)
  }
  if (event.event !== 'lock') return pairs(event.data, MAX_LINE)
  return pairs(Object.fromEntries(Object.entries(event.data).filter(([name]) => name !== 'schema' && name !== 'lid')), MAX_LINE)
}

/** Keeps the filtered events, and looks at new ones only as long as the filter stays. */
class Filtered {
  #kind = 'all'
  #text = ''
  #seen = 0
  #first = 0
  events: RunEvent[] = []

  update(run: FollowedRun, kind: string, wanted: string): RunEvent[] {
    const first = run.events[0]?.seq ?? 0
    if (kind !== this.#kind || wanted !== this.#text || first !== this.#first) {
      this.#kind = kind
      this.#text = wanted
      this.#first = first
      this.#seen = 0
      this.events = []
    }
    if (kind === 'all' && wanted === '') return run.events as RunEvent[]
    for (let index = this.#indexAfter(run); index < run.events.length; index += 1) {
      const event = run.events[index]
      if (!event) continue
      this.#seen = event.seq
      if ((kind === 'all' || kindOf(event) === kind) && (wanted === '' || this.#has(event, wanted))) this.events.push(event)
    }
    return this.events
  }

  #indexAfter(run: FollowedRun): number {
    const first = run.events[0]?.seq ?? 0
    return Math.max(0, this.#seen - first + 1)
  }

  #has(event: RunEvent, wanted: string): boolean {
    return `${event.event} ${pairs(event.data, 4000)}`.toLowerCase().includes(wanted)
  }
}

export function Events({ run, version }: { run: FollowedRun; version: number }) {
  const [kind, setKind] = useState('all')
  const [typed, setTyped] = useState('')
  const [following, setFollowing] = useState(true)
  const [chosen, setChosen] = useState<RunEvent | undefined>()
  const filtered = useRef(new Filtered())
  const wanted = typed.trim().toLowerCase()
  const shown = filtered.current.update(run, kind, wanted)
  const kinds = useMemo(() => {
    const there = new Set(run.events.slice(-5000).map(kindOf))
    return Object.keys(text.kind).filter(each => each === 'all' || there.has(each))
  }, [Math.floor(run.events.length / 50), run.events.length < 50 ? version : 0])
  const all = run.events.length + run.dropped

  return (
    <section class="card stack tight" aria-labelledby="events">
      <div class="row between">
        <h2 id="events">{text.events}</h2>
        <span class="small muted">{text.eventCount(shown.length + (shown === run.events ? run.dropped : 0), all)}</span>
      </div>
      {run.events.length > 0 && (
        <div class="row">
          <div class="chips" role="group" aria-label={text.kinds}>
            {kinds.map(each => (
              <button key={each} type="button" class="chip" aria-pressed={kind === each} onClick={() => setKind(each)}>
                {text.kind[each] ?? each}
              </button>
            ))}
          </div>
          <input
            class="input grow filter"
            type="search"
            aria-label={text.filter}
            placeholder={text.filter}
            value={typed}
            onInput={event => setTyped(event.currentTarget.value)}
          />
          {!following && (
            <button type="button" class="button small" onClick={() => setFollowing(true)}>
              {text.end}
            </button>
          )}
        </div>
      )}
      {run.dropped > 0 && <p class="small muted">{text.dropped(run.dropped)}</p>}
      {shown.length === 0 ? (
        <p class="muted">{run.events.length > 0 ? text.noEventFits : text.noEvents}</p>
      ) : (
        <VirtualList
          label={text.events}
          count={shown.length}
          rowHeight={ROW_HEIGHT}
          version={version}
          following={following}
          onFollowing={setFollowing}
          row={index => {
            const event = shown[index]
            if (!event) return null
            return (
              <button
                type="button"
                class={`event ${BAD.has(event.event) ? 'bad' : ''} ${event.kind === 'lock' ? 'asks' : ''}`}
                aria-expanded={chosen?.seq === event.seq}
                onClick={() => setChosen(chosen?.seq === event.seq ? undefined : event)}
              >
                <span class="event-seq">{event.seq}</span>
                <span class="event-at" title={exact(event.at)}>
                  {clock(event.at)}
                </span>
                <span class="event-name">{oneLine(event.event, 40)}</span>
                <span class="event-data">{lineOf(event)}</span>
              </button>
            )
          }}
        />
      )}
      {chosen && <Chosen event={chosen} close={() => setChosen(undefined)} />}
    </section>
  )
}

function Chosen({ event, close }: { event: RunEvent; close: () => void }) {
  const { data } = event
  const [only] = Object.values(data)
  const isText = Object.keys(data).length === 1 && typeof only === 'string' && only.includes('\n')
  return (
    <div class="chosen stack tight">
      <div class="row between">
        <h3>{text.event(oneLine(event.event, 40), event.seq)}</h3>
        <button type="button" class="button plain small" onClick={close}>
          {say.close}
        </button>
      </div>
      <p class="small muted">{exact(event.at)}</p>
      {isText ? (
        <pre class="plain" tabIndex={0}>
          {(only).slice(0, 200_000)}
        </pre>
      ) : (
        <div class="scroll tall" tabIndex={0} role="group" aria-label={text.event(event.event, event.seq)}>
          {Object.entries(data)
            .slice(0, 200)
            .map(([key, value]) => (
              <Tree key={key} name={key} value={value} />
            ))}
        </div>
      )}
    </div>
  )
}

/** Return all events as the text of a JSON file. */
export function exported(run: FollowedRun): Blob {
  const lines = run.events.map(({ seq, at, kind, event, data }) => json({ seq, at, kind, event, data }, 0))
  return new Blob(['[\n', lines.join(',\n'), '\n]\n'], { type: 'application/json' })
}
