/** Inbox: what waits, and what ended. */
import { useMemo, useState } from 'preact/hooks'
import { now } from '../app.ts'
import { DOT, oneLine } from '../format.ts'
import { Empty, PageHead, Skeletons, State, Time, useTask } from '../parts/parts.tsx'
import { paths } from '../router.ts'
import { listRuns, type RunRow, usedNodes } from '../runs/runs.ts'
import { say } from '../texts.ts'
import { look, looked, markSeen, notifies, seenAt, setNotifies, waiting } from './state.ts'

const text = say.inboxPage
const MOST = 100

export function InboxPage() {
  const [rows, setRows] = useState<ReadonlyMap<string, RunRow[]>>(new Map())
  const [done, setDone] = useState(false)
  useTask(async stop => {
    const before = usedNodes().length
    await Promise.all([
      look(stop),
      listRuns(
        {},
        (peerId, found) => !stop.aborted && setRows(known => new Map(known).set(peerId, found)),
        () => undefined,
        stop
      )
    ])
    // Nodes nearby that turned out to have something may have questions, too.
    if (usedNodes().length > before) await look(stop)
    if (!stop.aborted) setDone(true)
  }, [])
  const since = seenAt.value
  const ended = useMemo(
    () =>
      [...rows.values()]
        .flat()
        .filter(row => (row.state === 'done' || row.state === 'error') && row.modified > since)
        .sort((a, b) => b.modified - a.modified)
        .slice(0, MOST),
    [rows, since]
  )
  const locks = waiting.value
  const isReady = done || (looked.value && locks.length > 0)
  return (
    <>
      <PageHead
        title={text.title}
        aside={
          'Notification' in window ? (
            <div class="check">
              <input id="notify" type="checkbox" checked={notifies.value} onChange={event => void setNotifies(event.currentTarget.checked)} />
              <label for="notify">{text.notify}</label>
            </div>
          ) : null
        }
      >
        <p>{text.text}</p>
      </PageHead>
      {!isReady && <Skeletons label={say.loading} rows={2} />}
      {isReady && locks.length === 0 && ended.length === 0 && (
        <Empty title={text.none}>
          <p>{text.noneText}</p>
        </Empty>
      )}
      {locks.length > 0 && (
        <section class="card stack tight" aria-labelledby="waiting">
          <h2 id="waiting">{text.waiting}</h2>
          <ul class="lines">
            {locks.map(lock => (
              <li key={lock.lid}>
                <div class="line">
                  <a href={paths.run(lock.peerId, lock.fid, lock.lid)}>
                    <strong>{oneLine(lock.title, 300)}</strong>
                  </a>
                  <State state="locked" />
                </div>
                <p class="small muted">
                  <span title={oneLine(lock.path, 300)}>{oneLine(lock.name, 120)}</span>
                  {DOT}
                  {oneLine(lock.node, 60)}
                  {lock.expiresAt !== undefined && (
                    <>
                      {DOT}
                      {text.until} <Time at={lock.expiresAt} />
                    </>
                  )}
                </p>
              </li>
            ))}
          </ul>
        </section>
      )}
      {ended.length > 0 && (
        <section class="card stack tight" aria-labelledby="ended">
          <div class="row between">
            <h2 id="ended">{text.ended}</h2>
            <button type="button" class="button small" onClick={() => markSeen(now.peek())}>
              {text.seen}
            </button>
          </div>
          <ul class="lines">
            {ended.map(row => (
              <li key={row.key}>
                <div class="line">
                  <a href={paths.run(row.peerId, row.fid)} title={oneLine(row.path, 300)}>
                    <strong>{oneLine(row.name, 200)}</strong>
                  </a>
                  <State state={row.state} />
                </div>
                <p class="small muted">
                  {oneLine(row.node, 60)}
                  {DOT}
                  <Time at={row.modified} />
                  {row.error && `${DOT}${oneLine(row.error, 80)}`}
                </p>
              </li>
            ))}
          </ul>
        </section>
      )}
    </>
  )
}
