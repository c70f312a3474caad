/** One node: how it is, who one is there, and what its operator does. */
import { useId, useState } from 'preact/hooks'
import { fieldOf, isRow, numberOf, textOf, type Row } from '../../core/value.ts'
import type { NodeClient } from '../../net/api.ts'
import { announce, findNode, nodeOf, patiently } from '../app.ts'
import { nameOf, remember, shortId } from '../book.ts'
import { brief, bytes, dotted, duration, oneLine } from '../format.ts'
import { Confirm, Failure, Note, PageHead, Skeletons, Time, useTask } from '../parts/parts.tsx'
import { Way } from '../parts/way.tsx'
import { paths } from '../router.ts'
import { say } from '../texts.ts'
import { Users } from './users.tsx'
import { words } from './words.ts'

const text = say.nodePage

export function NodePage({ peerId }: { peerId: string }) {
  const [state, setState] = useState<Row | undefined>()
  const [who, setWho] = useState<Row | undefined>()
  const [error, setError] = useState<unknown>()
  const [turn, setTurn] = useState(0)
  const node = nodeOf(peerId)
  const again = () => setTurn(before => before + 1)
  useTask(
    async stop => {
      setError(undefined)
      try {
        await findNode(peerId, stop)
        const found = nodeOf(peerId)
        const [told, me] = await patiently(() => Promise.all([found.ask('node.state', {}, { signal: stop }), found.ask('auth.whoami', {}, { signal: stop })]), stop)
        if (stop.aborted) return
        remember(peerId, textOf(told, 'name'), [])
        setState(told)
        setWho(me)
      } catch (failed) {
        if (!stop.aborted) setError(failed)
      }
    },
    [peerId, turn]
  )
  const roles = words(who && fieldOf(who, 'roles'))
  const isOperator = roles.includes('operator')
  return (
    <>
      <PageHead
        title={oneLine(nameOf(peerId), 80)}
        aside={
          <a class="button" href={paths.flows('', peerId)}>
            {text.flows}
          </a>
        }
      >
        <p class="mono small">{peerId}</p>
      </PageHead>
      {error !== undefined && (
        <Failure error={error}>
          <button type="button" class="button small" onClick={again}>
            {say.retry}
          </button>
        </Failure>
      )}
      {!state && error === undefined && <Skeletons label={say.loading} rows={2} />}
      {state && who && (
        <>
          <Load node={node} state={state} who={who} roles={roles} />
          {isOperator && <Operation node={node} again={again} />}
          {isOperator && <Users node={node} />}
          <Shares node={node} />
        </>
      )}
    </>
  )
}

function Load({ node, state, who, roles }: { node: NodeClient; state: Row; who: Row; roles: string[] }) {
  const load = fieldOf(state, 'load')
  const row = load !== undefined && isRow(load) ? load : {}
  const runners = fieldOf(row, 'runners')
  const busy = runners !== undefined && isRow(runners) ? runners : {}
  const registries = fieldOf(state, 'registries')
  return (
    <section class="card stack" aria-labelledby="load">
      <h2 id="load">{text.load}</h2>
      <div class="gauges">
        {(['cpu', 'memory', 'disk'] as const).map(name => {
          const percent = numberOf(row, name)
          if (percent === undefined) return null
          return (
            <div key={name} class="stack tight">
              <div class="row between small">
                <span>{text[name]}</span>
                <span class="muted">{Math.round(percent)} %</span>
              </div>
              <progress class="meter" aria-label={text[name]} max={100} value={percent} />
            </div>
          )
        })}
      </div>
      <dl class="facts">
        <dt>{text.runners}</dt>
        <dd>{text.runnersText(numberOf(busy, 'free') ?? 0, numberOf(busy, 'busy') ?? 0)}</dd>
        <dt>{text.queued}</dt>
        <dd>{brief(fieldOf(row, 'queued') ?? 0)}</dd>
        <dt>{text.uptime}</dt>
        <dd>{duration(numberOf(state, 'uptime_s') ?? NaN)}</dd>
        <dt>{text.version}</dt>
        <dd>
          {dotted(`kodo ${brief(fieldOf(state, 'version'), 40)}`, `Python ${brief(fieldOf(state, 'python'), 40)}`)}
        </dd>
        <dt>{text.way}</dt>
        <dd>
          <Way node={node} />
        </dd>
        {Array.isArray(registries) && registries.length > 0 && (
          <>
            <dt>{text.registries}</dt>
            <dd>
              {registries.slice(0, 20).map((each, index) => (
                <p key={index}>
                  {isRow(each) ? `${oneLine(textOf(each, 'url'), 200)}: ${fieldOf(each, 'online') === true ? text.online : text.offline}` : ''}
                </p>
              ))}
            </dd>
          </>
        )}
        <dt>{text.whoami}</dt>
        <dd>{oneLine(textOf(who, 'user') || textOf(who, 'principal'), 120)}</dd>
        <dt>{text.roles}</dt>
        <dd>{roles.join(', ')}</dd>
      </dl>
    </section>
  )
}

interface CleanRow {
  kind: string
  id: string
  bytes: number
}

function Operation({ node, again }: { node: NodeClient; again: () => void }) {
  const id = useId()
  const [warm, setWarm] = useState('')
  const [goes, setGoes] = useState<{ rows: CleanRow[]; total: number; bytes: number } | undefined>()
  const [asked, setAsked] = useState<'clean' | 'stop' | undefined>()
  const [error, setError] = useState<unknown>()
  const act = (what: () => Promise<unknown>) => {
    setError(undefined)
    what().catch(setError)
  }
  const preview = async () => {
    const answer = await node.ask('cleanup.list')
    const result = fieldOf(answer, 'result')
    const rows = (Array.isArray(result) ? result.filter(isRow) : []).map(row => ({ kind: textOf(row, 'kind'), id: textOf(row, 'id'), bytes: numberOf(row, 'bytes') ?? 0 }))
    setGoes({ rows, total: numberOf(answer, 'total_records') ?? rows.length, bytes: numberOf(answer, 'bytes') ?? 0 })
  }
  return (
    <section class="card stack" aria-labelledby="operation">
      <h2 id="operation">{text.operator}</h2>
      {error !== undefined && <Failure error={error} />}
      <form
        class="stack tight"
        onSubmit={event => {
          event.preventDefault()
          act(async () => {
            await node.ask('node.scale', { runners: Number(warm) })
            again()
          })
        }}
      >
        <label for={`${id}-warm`}>{text.warm}</label>
        <div class="row">
          <input id={`${id}-warm`} class="input short" inputMode="numeric" value={warm} onInput={event => setWarm(event.currentTarget.value)} />
          <button type="submit" class="button" disabled={!/^\d{1,3}$/.test(warm)}>
            {text.set}
          </button>
        </div>
      </form>
      <div class="stack tight">
        <h3>{text.cleanup}</h3>
        <p class="small muted">{text.cleanupAbout}</p>
        <div class="row">
          <button type="button" class="button" onClick={() => act(preview)}>
            {text.preview}
          </button>
          {goes && goes.total > 0 && (
            <button type="button" class="button danger" onClick={() => setAsked('clean')}>
              {text.clean} ({bytes(goes.bytes)})
            </button>
          )}
        </div>
        {goes && goes.total === 0 && <Note>{<p>{text.nothing}</p>}</Note>}
        {goes && goes.rows.length > 0 && (
          <div class="scroll tall" tabIndex={0} role="group" aria-label={text.cleanup}>
            <table class="table">
              <tbody>
                {goes.rows.slice(0, 500).map((row, index) => (
                  <tr key={index}>
                    <td>{oneLine(row.kind, 40)}</td>
                    <td class="mono small">{oneLine(row.id, 200)}</td>
                    <td class="nowrap">{bytes(row.bytes)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        )}
      </div>
      <div>
        <button type="button" class="button danger" onClick={() => setAsked('stop')}>
          {text.stop}
        </button>
      </div>
      {asked === 'clean' && goes && (
        <Confirm
          title={text.cleanTitle}
          text={dotted(String(goes.total), bytes(goes.bytes))}
          action={text.clean}
          close={() => setAsked(undefined)}
          act={async () => {
            await node.ask('cleanup.run')
            await preview()
          }}
        />
      )}
      {asked === 'stop' && (
        <Confirm title={text.stopTitle} text={text.stopText} action={text.stop} close={() => setAsked(undefined)} act={() => node.ask('node.shutdown', {}, { repeat: false }).then(() => undefined)} />
      )}
    </section>
  )
}

/** With whom a share is, in short. */
function namesOf(row: Row): string {
  const to = fieldOf(row, 'to')
  if (to === undefined || !isRow(to)) return ''
  return [...words(fieldOf(to, 'users')), ...words(fieldOf(to, 'roles'))].map(each => oneLine(shortId(each), 40)).join(', ')
}

function Shares({ node }: { node: NodeClient }) {
  const [rows, setRows] = useState<Row[] | undefined>()
  const [error, setError] = useState<unknown>()
  const [turn, setTurn] = useState(0)
  useTask(
    async stop => {
      const found: Row[] = []
      for await (const row of node.pages('share.list', {}, { signal: stop })) {
        found.push(row)
        if (found.length >= 500) break
      }
      if (!stop.aborted) setRows(found)
    },
    [node, turn]
  )
  return (
    <section class="card stack tight" aria-labelledby="shares">
      <h2 id="shares">{text.shares}</h2>
      {error !== undefined && <Failure error={error} />}
      {rows?.length === 0 && <p class="muted">{text.noShares}</p>}
      {rows && rows.length > 0 && (
        <div class="scroll" tabIndex={0} role="group" aria-label={text.shares}>
          <table class="table">
            <thead>
              <tr>
                <th scope="col">{text.flow}</th>
                <th scope="col">{text.for}</th>
                <th scope="col">{text.state}</th>
                <th scope="col">{text.downloads}</th>
                <th scope="col">{text.ends}</th>
                <th scope="col">
                  <span class="unseen">{text.revoke}</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {rows.map(row => {
                const sid = textOf(row, 'sid')
                return (
                  <tr key={sid}>
                    <td>
                      <a href={paths.run(node.peerId, textOf(row, 'fid'))}>{oneLine(textOf(row, 'name'), 80)}</a>
                    </td>
                    <td class="small">{fieldOf(row, 'link') === true ? text.link : namesOf(row)}</td>
                    <td>{oneLine(textOf(row, 'state'), 40)}</td>
                    <td>
                      {brief(fieldOf(row, 'done') ?? 0)}
                      {typeof fieldOf(row, 'downloads') === 'number' && ` / ${brief(fieldOf(row, 'downloads'))}`}
                    </td>
                    <td>
                      <Time at={numberOf(row, 'expires_at')} />
                    </td>
                    <td>
                      {textOf(row, 'state') === 'live' && (
                        <button
                          type="button"
                          class="button small"
                          onClick={() => {
                            node.ask('share.revoke', { sid }).then(() => {
                              announce(text.revoke)
                              setTurn(turn + 1)
                            }, setError)
                          }}
                        >
                          {text.revoke}
                        </button>
                      )}
                    </td>
                  </tr>
                )
              })}
            </tbody>
          </table>
        </div>
      )}
    </section>
  )
}
