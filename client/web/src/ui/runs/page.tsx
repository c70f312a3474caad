/** Runs: one's own, over all nodes, with what they add up to. */
import { useEffect, useMemo, useState } from 'preact/hooks'
import { announce, engine, explain, nodeOf, now } from '../app.ts'
import { duration, oneLine } from '../format.ts'
import { Confirm, Empty, Note, PageHead, Skeletons, State, Time, useTask } from '../parts/parts.tsx'
import { paths } from '../router.ts'
import { say } from '../texts.ts'
import { dayBounds, fetchOutputs, type FlowStats, listRuns, type RunRow, statsOf } from './runs.ts'

const text = say.list
const STATES = ['queued', 'running', 'locked', 'done', 'error'] as const
const PAGE = 100
/** Runs that are not over are looked at again so often. */
const LOOK_MS = 5000

type Act = 'delete' | 'kill' | 'ack' | 'download'

/** `tag`: only runs that have it. */
export function RunsPage({ tag }: { tag: string | undefined }) {
  const [rows, setRows] = useState<ReadonlyMap<string, RunRow[]>>(new Map())
  const [away, setAway] = useState<string[]>([])
  const [looking, setLooking] = useState(true)
  const [state, setState] = useState('')
  const [typed, setTyped] = useState('')
  const [selected, setSelected] = useState<ReadonlySet<string>>(new Set())
  const [from, setFrom] = useState('')
  const [to, setTo] = useState('')
  const [most, setMost] = useState(PAGE)
  const [asked, setAsked] = useState<'delete' | 'kill' | undefined>()
  const [busy, setBusy] = useState(false)
  const [failed, setFailed] = useState<string[]>([])
  const [turn, setTurn] = useState(0)
  useTask(
    async stop => {
      setLooking(true)
      const silent: string[] = []
      const { since, until } = dayBounds(from, to)
      const match = { ...(tag !== undefined && { tag }), ...(until !== undefined && { until }) }
      await listRuns(
        { ...(since !== undefined && { since }), ...(Object.keys(match).length > 0 && { match }) },
        (peerId, found) => !stop.aborted && setRows(before => new Map(before).set(peerId, found)),
        name => silent.push(name),
        stop
      )
      if (stop.aborted) return
      setAway(silent)
      setLooking(false)
    },
    [turn, tag, from, to]
  )
  const isLive = [...rows.values()].flat().some(row => row.state !== 'done' && row.state !== 'error')
  useEffect(() => {
    if (!isLive || looking) return undefined
    const timer = setInterval(() => !document.hidden && setTurn(before => before + 1), LOOK_MS)
    return () => clearInterval(timer)
  }, [isLive, looking])
  const all = useMemo(() => [...rows.values()].flat().sort((a, b) => b.created - a.created), [rows])
  const wanted = typed.trim().toLowerCase()
  const shown = useMemo(
    () => all.filter(row => within(row.created, from, to) && (state === '' || row.state === state) && (wanted === '' || `${row.name} ${row.path} ${row.node} ${row.fid} ${row.tags.join(' ')}`.toLowerCase().includes(wanted))),
    [all, state, wanted, from, to]
  )
  const chosen = shown.filter(row => selected.has(row.key))
  const over = chosen.filter(row => row.state === 'done' || row.state === 'error')
  const live = chosen.filter(row => row.state !== 'done' && row.state !== 'error')
  const mine = over.filter(row => row.own && !row.acknowledged)
  const act = async (what: Act, of: RunRow[]) => {
    const faults: string[] = []
    setBusy(true)
    for (const row of of)
      try {
        if (what === 'download') await fetchOutputs(row)
        else await nodeOf(row.peerId).ask(`run.${what}`, { fid: row.fid })
        if (what === 'delete') await engine().knownRuns.forget(row.fid)
      } catch (error) {
        faults.push(`${row.name}: ${explain(error).title}`)
      }
    setBusy(false)
    setFailed(faults)
    setSelected(new Set())
    setTurn(before => before + 1)
    announce(text.acted(of.length - faults.length))
  }
  const toggle = (key: string, on: boolean) => {
    const next = new Set(selected)
    if (on) next.add(key)
    else next.delete(key)
    setSelected(next)
  }
  const isDated = from !== '' || to !== ''
  const isEmpty = all.length === 0 && !looking && !isDated
  return (
    <>
      <PageHead
        title={text.title}
        aside={
          <div class="row">
            <a class="button" href={paths.schedules}>
              {say.schedule.listTitle}
            </a>
            <a class="button" href={paths.invitations}>
              {say.invite.listTitle}
            </a>
          </div>
        }
      >
        <p>{text.text}</p>
      </PageHead>
      {tag !== undefined && (
        <section class="card row" aria-label={text.tag(oneLine(tag, 128))}>
          <strong class="grow wide">{text.tag(oneLine(tag, 128))}</strong>
          {STATES.map(each => [each, all.filter(row => row.state === each).length] as const).map(
            ([each, count]) =>
              count > 0 && (
                <span key={each} class="tally">
                  {count} <State state={each} />
                </span>
              )
          )}
          <a href={paths.runs()}>{text.allRuns}</a>
        </section>
      )}
      {(all.length > 0 || isDated) && (
        <div class="row filters dated">
          <input
            class="input grow"
            type="search"
            aria-label={text.filter}
            placeholder={`${text.filter}: ${text.filterHint}`}
            value={typed}
            onInput={event => setTyped(event.currentTarget.value)}
          />
          <select class="input" aria-label={text.state} value={state} onChange={event => setState(event.currentTarget.value)}>
            <option value="">{text.any}</option>
            {STATES.map(each => (
              <option key={each} value={each}>
                {each}
              </option>
            ))}
          </select>
          <label class="dating">
            {text.from}
            <input class="input" type="date" max={to || undefined} value={from} onChange={event => setFrom(event.currentTarget.value)} />
          </label>
          <label class="dating">
            {text.to}
            <input class="input" type="date" min={from || undefined} value={to} onChange={event => setTo(event.currentTarget.value)} />
          </label>
        </div>
      )}
      {away.length > 0 && <Note kind="warn">{<p>{text.awayNodes(away.map(each => oneLine(each, 60)).join(', '))}</p>}</Note>}
      {failed.length > 0 && (
        <Note kind="bad" title={text.failed(failed.length)}>
          <ul class="plain-list">
            {failed.slice(0, 20).map((each, index) => (
              <li key={index}>{oneLine(each, 300)}</li>
            ))}
          </ul>
        </Note>
      )}
      {chosen.length > 0 && (
        <div class="row card selection" role="group" aria-label={text.selected(chosen.length)}>
          <span class="grow">{busy ? text.busy : text.selected(chosen.length)}</span>
          {over.length > 0 && (
            <button type="button" class="button" disabled={busy} onClick={() => void act('download', over)}>
              {text.download} ({over.length})
            </button>
          )}
          {mine.length > 0 && (
            <button type="button" class="button" disabled={busy} title={text.ackAbout} onClick={() => void act('ack', mine)}>
              {text.ack} ({mine.length})
            </button>
          )}
          {live.length > 0 && (
            <button type="button" class="button danger" disabled={busy} onClick={() => setAsked('kill')}>
              {say.run.kill} ({live.length})
            </button>
          )}
          {over.length > 0 && (
            <button type="button" class="button danger" disabled={busy} onClick={() => setAsked('delete')}>
              {say.run.delete} ({over.length})
            </button>
          )}
        </div>
      )}
      {isEmpty && (
        <Empty title={tag === undefined ? text.none : text.noneTagged}>
          <p>{text.noneText}</p>
          <p class="empty-command">
            <a class="button main" href={paths.flows()}>
              {say.flows}
            </a>
          </p>
        </Empty>
      )}
      {looking && all.length === 0 && <Skeletons label={say.loading} />}
      {(all.length > 0 || (isDated && !looking)) && shown.length === 0 && <Empty title={text.noneFits} />}
      {shown.length > 0 && (
        <div class="card scroll">
          <table class="table folding run-list">
            <caption class="unseen">{text.title}</caption>
            <thead>
              <tr>
                <th scope="col">
                  <input
                    type="checkbox"
                    aria-label={text.selectAll}
                    checked={chosen.length === Math.min(shown.length, most) && chosen.length > 0}
                    onChange={event => setSelected(new Set(event.currentTarget.checked ? shown.slice(0, most).map(row => row.key) : []))}
                  />
                </th>
                <th scope="col">{text.flow}</th>
                <th scope="col">{text.state}</th>
                <th scope="col">{text.node}</th>
                <th scope="col">{text.begun}</th>
                <th scope="col">{text.took}</th>
              </tr>
            </thead>
            <tbody>
              {shown.slice(0, most).map(row => (
                <tr key={row.key}>
                  <td class="pick">
                    <input
                      type="checkbox"
                      aria-label={text.select(oneLine(row.name, 80))}
                      checked={selected.has(row.key)}
                      onChange={event => toggle(row.key, event.currentTarget.checked)}
                    />
                  </td>
                  <td class="run-name">
                    <a href={paths.run(row.peerId, row.fid)} title={oneLine(row.path, 300)}>
                      {oneLine(row.name, 120)}
                    </a>
                    {row.error && <p class="small muted">{oneLine(row.error, 80)}</p>}
                    {tag === undefined && row.tags.length > 0 && (
                      <div class="chips">
                        {row.tags.slice(0, 3).map(each => (
                          <a key={each} class="chip" href={paths.runs(each)}>
                            {oneLine(each, 40)}
                          </a>
                        ))}
                      </div>
                    )}
                  </td>
                  <td class="run-word">
                    <State state={row.state} />
                    {row.position !== undefined && <p class="small muted nowrap">{say.run.queue(row.position)}</p>}
                    {row.waits && <p class="small muted">{text.waits}</p>}
                  </td>
                  <td class="node-name">{oneLine(row.node, 60)}</td>
                  <td class="run-begun">
                    <Time at={row.created} />
                  </td>
                  <td class="run-took nowrap">{row.runtime === undefined ? '' : duration(row.runtime)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {shown.length > most && (
        <button type="button" class="button" onClick={() => setMost(most * 3)}>
          {say.more}
        </button>
      )}
      {all.length > 0 && <Stats stats={statsOf(shown, now.value)} />}
      {asked === 'delete' && (
        <Confirm title={text.deleteMany(over.length)} text={say.run.deleteText} action={say.run.deleteAct} act={() => act('delete', over)} close={() => setAsked(undefined)} />
      )}
      {asked === 'kill' && <Confirm title={text.killMany(live.length)} text={say.run.killText} action={say.run.kill} act={() => act('kill', live)} close={() => setAsked(undefined)} />}
    </>
  )
}

/** Return whether a moment is on one of these days, which may be open on either side. */
function within(at: number, from: string, to: string): boolean {
  const { since, until } = dayBounds(from, to)
  return at >= (since ?? 0) && at < (until ?? Infinity)
}

/** Requests, errors and run times of each flow. */
function Stats({ stats }: { stats: FlowStats[] }) {
  const words = say.stats
  if (stats.length === 0) return null
  return (
    <section class="card stack tight" aria-labelledby="stats">
      <div>
        <h2 id="stats">{words.title}</h2>
        <p class="small muted">{words.text}</p>
      </div>
      <div class="scroll" tabIndex={0} role="group" aria-label={words.title}>
        <table class="table">
          <thead>
            <tr>
              <th scope="col">{text.flow}</th>
              <th scope="col">{words.runs}</th>
              <th scope="col">{words.errors}</th>
              <th scope="col">{words.median}</th>
              <th scope="col">{words.slow}</th>
              <th scope="col">{words.types}</th>
            </tr>
          </thead>
          <tbody>
            {stats.slice(0, 50).map(each => (
              <tr key={each.name}>
                <td class="flow-name">{oneLine(each.name, 80)}</td>
                <td>
                  <div class="row counted">
                    <span class="number">{each.runs}</span>
                    <Bars stats={each} />
                  </div>
                </td>
                <td>{each.errors}</td>
                <td class="nowrap">{each.median === undefined ? '' : duration(each.median)}</td>
                <td class="nowrap">{each.slow === undefined ? '' : duration(each.slow)}</td>
                <td class="small">{each.types.map(([type, count]) => `${oneLine(type, 60)} ${count}`).join(', ')}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  )
}

function Bars({ stats }: { stats: FlowStats }) {
  const highest = Math.max(1, ...stats.days.map(day => day.runs))
  return (
    <svg class="bars" width="84" height="24" viewBox="0 0 84 24" role="img" aria-label={`${say.stats.daily(oneLine(stats.name, 80))}: ${stats.days.map(day => day.runs).join(', ')}`}>
      {stats.days.map((day, index) => {
        const [height, bad] = [(day.runs / highest) * 22, (day.errors / highest) * 22]
        return (
          <g key={index}>
            <rect class="bar-all" x={index * 6} y={24 - Math.max(height, 1)} width="4" height={Math.max(height, 1)} rx="1" />
            {bad > 0 && <rect class="bar-bad" x={index * 6} y={24 - bad} width="4" height={bad} rx="1" />}
          </g>
        )
      })}
    </svg>
  )
}
