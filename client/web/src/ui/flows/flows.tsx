/** Flows: what can be launched, wherever it is. */
import { useSignal } from '@preact/signals'
import { useEffect, useId, useMemo, useState } from 'preact/hooks'
import { parseLink } from '../../core/link.ts'
import { CallError } from '../../core/errors.ts'
import { announce, engine, findNode, nodeOf, patiently } from '../app.ts'
import { Login } from '../me/login.tsx'
import { nameOf, remember } from '../book.ts'
import { dotted, oneLine } from '../format.ts'
import { host } from '../host.ts'
import { openToken } from '../link/open.ts'
import { coded } from '../parts/coded.tsx'
import { SearchIcon } from '../parts/icons.tsx'
import { CopyLine, Empty, Failure, Note, PageHead, Skeletons, useTask } from '../parts/parts.tsx'
import { go, paths, settledFlows } from '../router.ts'
import { say } from '../texts.ts'
import { asked, fits, type FlowRow, flowsOfNode, lookAround, searchCatalogs } from './catalog.ts'

const text = say.find
const WAIT_MS = 250

/** What was found the last time: shown at once when the person comes back. */
let before: FlowRow[] = []

export function FlowsPage({ search, node }: { search: string; node: string | undefined }) {
  const [typed, setTyped] = useState(search)
  const [wanted, setWanted] = useState(search)
  const [sort, setSort] = useState('name')
  const [from, setFrom] = useState('')
  const near = useSignal<FlowRow[]>(node ? [] : before)
  const listed = useSignal<ReadonlyMap<string, FlowRow[]>>(new Map())
  const [looking, setLooking] = useState(true)
  const [error, setError] = useState<unknown>()
  const [turn, setTurn] = useState(0)
  const served = host.value

  useEffect(() => {
    const drawn = location.hash
    const timer = setTimeout(() => {
      setWanted(typed)
      const settled = settledFlows(drawn, location.hash, typed, node)
      if (settled !== undefined) history.replaceState(null, '', settled)
    }, WAIT_MS)
    return () => clearTimeout(timer)
  }, [typed, node])

  useTask(
    async stop => {
      setLooking(true)
      setError(undefined)
      const fresh = new Map<string, FlowRow>()
      const tell = (rows: FlowRow[]) => {
        for (const row of rows) fresh.set(`${row.peerId} ${row.path}`, row)
        near.value = [...fresh.values()]
        if (!node) before = near.value
      }
      try {
        if (node) {
          await findNode(node, stop)
          tell(await patiently(() => flowsOfNode(node, 'near', stop), stop))
        }
        else await lookAround(tell, stop)
      } catch (failed) {
        if (!stop.aborted) setError(failed)
      }
      if (!stop.aborted) setLooking(false)
    },
    [node, served, turn]
  )
  useTask(
    async stop => {
      if (node) return
      const by = sort === 'published' ? 'published desc' : `${sort} asc`
      await searchCatalogs(wanted, by, stop, (rows, source) => (listed.value = new Map(listed.peek()).set(source, rows)))
    },
    [wanted, sort, node, served, turn]
  )

  const all = useMemo(() => {
    const joined = new Map<string, FlowRow>()
    const rows = [...near.value.filter(row => fits(row, wanted)), ...[...listed.value.values()].flat()]
    for (const row of rows) {
      const key = `${row.peerId} ${row.path}`
      if (!joined.has(key)) joined.set(key, row)
    }
    return [...joined.values()]
  }, [near.value, listed.value, wanted])
  const shown = useMemo(() => all.filter(row => from === '' || row.source === from).sort(ORDERS[sort] ?? byName), [all, from, sort])
  const sources = ['near', ...served.catalogs.map(each => each.url)]
  const { left, away, closed, refused } = asked.value

  useEffect(() => {
    if (!looking) announce(text.count(shown.length, all.length))
  }, [shown.length, looking])

  return (
    <>
      <PageHead title={node ? nameOf(node) : text.title}>
        <p>{node ? <a href={paths.flows()}>{text.everything}</a> : text.text}</p>
      </PageHead>
      {served.status === 'locked' && (
        <Note kind="warn" title={say.hostLocked.title}>
          <p>{coded(say.hostLocked.text)}</p>
        </Note>
      )}
      {served.kind === 'web' && served.status === 'away' && (
        <Note kind="warn" title={say.hostAway.title}>
          <p>{coded(say.hostAway.text)}</p>
        </Note>
      )}
      <div class="row filters">
        <div class="search">
          <SearchIcon />
          <input
            class="input"
            type="search"
            aria-label={text.search}
            placeholder={`${text.search}: ${text.searchHint}`}
            value={typed}
            onInput={event => setTyped(event.currentTarget.value)}
          />
        </div>
        {!node && sources.length > 1 && (
          <select class="input" aria-label={text.from} value={from} onChange={event => setFrom(event.currentTarget.value)}>
            <option value="">{text.all}</option>
            {sources.map(each => (
              <option key={each} value={each}>
                {each === 'near' ? text.near : each}
              </option>
            ))}
          </select>
        )}
        <select class="input" aria-label={text.sort} value={sort} onChange={event => setSort(event.currentTarget.value)}>
          {Object.entries(text.sorts).map(([key, word]) => (
            <option key={key} value={key}>
              {word}
            </option>
          ))}
        </select>
      </div>
      {error !== undefined && (
        <Failure error={error}>
          <button type="button" class="button small" onClick={() => setTurn(turn + 1)}>
            {say.retry}
          </button>
        </Failure>
      )}
      {node && error instanceof CallError && error.reason === 'login-needed' && <Login at={nodeOf(node)} done={() => setTurn(turn + 1)} />}
      {shown.length > 0 && (
        <section class="stack" aria-label={text.title}>
          <div class="row between small muted">
            <span>{text.count(shown.length, all.length)}</span>
            {looking && <span role="status">{left > 0 ? text.asking(left) : text.looking}</span>}
          </div>
          <ul class="flow-list">
            {shown.map(row => (
              <FlowCard key={`${row.peerId} ${row.path}`} row={row} />
            ))}
          </ul>
        </section>
      )}
      {shown.length === 0 && looking && error === undefined && <Skeletons label={text.looking} />}
      {closed.map(url => (
        <ClosedRegistry key={url} url={url} done={() => setTurn(turn + 1)} />
      ))}
      {shown.length === 0 && !looking && error === undefined && closed.length === 0 && (
        <Empty title={wanted || from ? text.noneFits : text.none}>
          <p>{wanted || from ? text.noneFitsText : text.noneText}</p>
          {!wanted && !from && (
            <p class="empty-command">
              <code>koco up</code>
            </p>
          )}
        </Empty>
      )}
      {refused.length > 0 && !looking && <p class="fault">{dotted(...refused.slice(0, 8).map(each => oneLine(each, 200)))}</p>}
      {away.length > 0 && !looking && <p class="small muted">{dotted(...away.slice(0, 8).map(each => text.away(oneLine(each, 80))))}</p>}
      {!node && <OpenElsewhere />}
    </>
  )
}

const byName = (a: FlowRow, b: FlowRow) => a.name.localeCompare(b.name) || a.node.localeCompare(b.node)
const ORDERS: Record<string, (a: FlowRow, b: FlowRow) => number> = {
  name: byName,
  node: (a, b) => a.node.localeCompare(b.node) || byName(a, b),
  published: (a, b) => (b.published ?? 0) - (a.published ?? 0) || byName(a, b)
}

function FlowCard({ row }: { row: FlowRow }) {
  // With one registry, or none, it goes without saying.
  const isAmongMany = row.source !== 'near' && host.value.catalogs.length > 1
  const [line = ''] = row.description.trim().split('\n', 1)
  return (
    <li class="card flow-card">
      <div class="flow-top">
        {row.broken ? <strong>{oneLine(row.name, 160)}</strong> : <a href={paths.flow(row.peerId, row.path)}>{oneLine(row.name, 160)}</a>}
        {row.broken && <span class="chip">{text.broken}</span>}
      </div>
      {line && <p class="flow-line">{oneLine(line, 400)}</p>}
      <p class="small muted flow-about">
        {dotted(`${text.on} ${oneLine(row.node || row.peerId, 80)}`, oneLine(row.organization, 80), row.release && text.release(oneLine(row.release, 40)), isAmongMany && text.listedBy(row.source.replace(/^https?:\/\//, '')))}
      </p>
      {row.tags.length > 0 && (
        <div class="chips">
          {row.tags.slice(0, 8).map(tag => (
            <span key={tag} class="chip">
              {oneLine(tag, 40)}
            </span>
          ))}
        </div>
      )}
    </li>
  )
}

/** A registry that only users read: where one logs in to it. */
function ClosedRegistry({ url, done }: { url: string; done: () => void }) {
  const id = useId()
  const registry = engine().registries.find(each => each.url === url)
  return (
    <section class="card stack" aria-labelledby={id}>
      <div>
        <h2 id={id}>{text.closed}</h2>
        <p class="muted">{registry ? text.closedText : text.closedElsewhere}</p>
      </div>
      {registry ? <Login at={registry} done={done} /> : <CopyLine text={text.loginCommand(url)} label={text.closed} />}
    </section>
  )
}

/** A node or a link that is in no list. */
function OpenElsewhere() {
  const id = useId()
  const [typed, setTyped] = useState('')
  const [fault, setFault] = useState('')
  const open = () => {
    const given = typed.trim()
    const peerId = /\/p2p\/([1-9A-HJ-NP-Za-km-z]{40,64})$/.exec(given)?.[1]
    if (given.startsWith('/') && peerId !== undefined) {
      remember(peerId, '', [given], { used: true })
      go(paths.flows('', peerId))
      return
    }
    if (/^12D3Koo[1-9A-HJ-NP-Za-km-z]{45}$/.test(given)) {
      go(paths.flows('', given))
      return
    }
    try {
      openToken(parseLink(given), given)
    } catch {
      setFault(text.notAnAddress)
    }
  }
  return (
    <form
      class="card stack tight"
      onSubmit={event => {
        event.preventDefault()
        open()
      }}
    >
      <label for={id}>{text.address}</label>
      <div class="row">
        <input
          id={id}
          class="input grow"
          autocomplete="off"
          spellcheck={false}
          placeholder={text.addressHint}
          aria-describedby={`${id}-about`}
          aria-invalid={fault !== ''}
          value={typed}
          onInput={event => {
            setTyped(event.currentTarget.value)
            setFault('')
          }}
        />
        <button type="submit" class="button">
          {text.open}
        </button>
      </div>
      <p id={`${id}-about`} class="small muted">
        {text.addressAbout}
      </p>
      {fault && (
        <p class="fault" role="alert">
          {fault}
        </p>
      )}
    </form>
  )
}
