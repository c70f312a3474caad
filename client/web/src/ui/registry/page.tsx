/** A registry's panel: how it is for everybody, and for operators its list, records, mesh, users and audit. */
import { signal } from '@preact/signals'
import { useId, useMemo, useState } from 'preact/hooks'
import { CallError } from '../../core/errors.ts'
import { fieldOf, isRow, numberOf, textOf, type Row } from '../../core/value.ts'
import type { RegistryOperator } from '../../net/api.ts'
import { announce, engine } from '../app.ts'
import { shortId } from '../book.ts'
import { brief, dotted, oneLine } from '../format.ts'
import { host } from '../host.ts'
import { waysOf } from '../me/login.tsx'
import { Account } from '../me/me.tsx'
import { Users } from '../nodes/users.tsx'
import { LineForm } from '../parts/line.tsx'
import { Confirm, CopyLine, Empty, Failure, Note, PageHead, Skeletons, Time, useTask } from '../parts/parts.tsx'
import { say } from '../texts.ts'
import { Records } from './records.tsx'

const text = say.registry

export const rowsOf = (answer: Row, key = 'result'): Row[] => {
  const rows = fieldOf(answer, key)
  return Array.isArray(rows) ? rows.filter(isRow) : []
}

export function RegistryPage() {
  if (host.value.kind !== 'registry')
    return (
      <Empty title={text.elsewhere}>
        <p>{text.elsewhereText}</p>
      </Empty>
    )
  return <Panel />
}

/** Counts what was changed in this tab, so that the audit is read anew. */
const changes = signal(0)

function counting(at: RegistryOperator): RegistryOperator {
  const counted = async (answer: Promise<Row>): Promise<Row> => {
    const told = await answer
    changes.value += 1
    return told
  }
  return {
    url: at.url,
    pages: (op, args) => at.pages(op, args),
    ask: (op, args) => counted(at.ask(op, args)),
    call: (method, target, body) => (method === 'GET' ? at.call(method, target) : counted(at.call(method, target, body))),
    enrol: code => counted(at.enrol(code))
  }
}

function Panel() {
  const at = useMemo(() => counting(engine().operator(location.origin)), [])
  const [state, setState] = useState<Row | undefined>()
  const [operators, setOperators] = useState<Row | undefined>()
  const [isOperator, setIsOperator] = useState<boolean | undefined>()
  const [error, setError] = useState<unknown>()
  const [turn, setTurn] = useState(0)
  const again = () => setTurn(before => before + 1)
  useTask(
    async stop => {
      setError(undefined)
      try {
        const told = await engine().registries[0]?.state({ signal: stop })
        if (!stop.aborted) setState(told)
      } catch (failed) {
        if (!stop.aborted) setError(failed)
      }
    },
    [turn]
  )
  useTask(
    async stop => {
      try {
        const found = await at.call('GET', '/operators')
        if (stop.aborted) return
        setOperators(found)
        setIsOperator(true)
      } catch (failed) {
        if (stop.aborted) return
        const isNone = failed instanceof CallError && (failed.reason === 'operator-only' || failed.code === 401)
        if (isNone) setIsOperator(false)
        else setError(failed)
      }
    },
    [at, turn]
  )
  return (
    <>
      <PageHead title={text.title}>
        <p>{text.text}</p>
        <p class="mono small">{location.origin}</p>
      </PageHead>
      {error !== undefined && (
        <Failure error={error}>
          <button type="button" class="button small" onClick={again}>
            {say.retry}
          </button>
        </Failure>
      )}
      {!state && error === undefined && <Skeletons label={say.loading} rows={2} />}
      {state && <State state={state} />}
      <You />
      {isOperator === false && <Enrol at={at} done={again} />}
      {isOperator && operators && (
        <>
          <Records at={at} />
          <Names at={at} />
          <Problems at={at} />
          <Mesh at={at} />
          <Operators at={at} told={operators} again={again} />
          <Users node={at} />
          <Audit at={at} />
          <Stop at={at} />
        </>
      )}
    </>
  )
}

function State({ state }: { state: Row }) {
  const nodes = fieldOf(state, 'nodes')
  const counts = nodes !== undefined && isRow(nodes) ? nodes : {}
  const count = (name: string) => numberOf(counts, name) ?? 0
  return (
    <section class="card stack tight" aria-labelledby="state">
      <h2 id="state">{text.state}</h2>
      <dl class="facts">
        <dt>{text.nodes}</dt>
        <dd>{text.counts(count('online'), count('unknown'), count('offline'))}</dd>
        <dt>{text.flows}</dt>
        <dd>{brief(fieldOf(state, 'flows') ?? 0)}</dd>
        <dt>{text.lets}</dt>
        <dd>{fieldOf(state, 'open') === true ? text.isOpen : text.isClosed}</dd>
        <dt>{text.version}</dt>
        <dd>
          {dotted(`kodo ${brief(fieldOf(state, 'version'), 40)}`, `Python ${brief(fieldOf(state, 'python'), 40)}`)}
        </dd>
      </dl>
    </section>
  )
}

/** As whom a registry that has users knows this browser. */
function You() {
  const [registry] = engine().registries
  const [hasUsers, setHasUsers] = useState(false)
  useTask(async stop => {
    const info = await registry?.logins.info()
    if (!stop.aborted && info) setHasUsers(waysOf(info).length > 0)
  }, [])
  if (!registry || !hasUsers) return null
  return (
    <section class="card stack tight" aria-labelledby="you">
      <h2 id="you">{text.you}</h2>
      <ul>
        <Account at={registry} name={registry.url} />
      </ul>
    </section>
  )
}

/** Becoming an operator, by a code. */
function Enrol({ at, done }: { at: RegistryOperator; done: () => void }) {
  const [me, setMe] = useState('')
  useTask(async stop => {
    const own = await engine().identity.peerId()
    if (!stop.aborted) setMe(own)
  }, [])
  return (
    <section class="card stack" aria-labelledby="enrol">
      <div>
        <h2 id="enrol">{text.notOperator}</h2>
        <p class="muted">{text.notOperatorText}</p>
      </div>
      {me && <CopyLine text={me} label={say.meText.peer} />}
      <LineForm label={text.code} action={text.enrol} main autocomplete="one-time-code" send={code => at.enrol(code).then(done)} />
    </section>
  )
}

/** What one section reads, again after each change, and how it does something. */
function useDesk(read: () => Promise<Row>, inputs: readonly unknown[] = []) {
  const [told, setTold] = useState<Row | undefined>()
  const [error, setError] = useState<unknown>()
  const [turn, setTurn] = useState(0)
  const again = () => setTurn(before => before + 1)
  useTask(
    async stop => {
      try {
        const found = await read()
        if (!stop.aborted) setTold(found)
      } catch (failed) {
        if (!stop.aborted) setError(failed)
      }
    },
    [turn, ...inputs]
  )
  const act = async (what: () => Promise<unknown>): Promise<boolean> => {
    setError(undefined)
    try {
      await what()
      again()
      return true
    } catch (failed) {
      setError(failed)
      return false
    }
  }
  return { told, error, again, act }
}

function Names({ at }: { at: RegistryOperator }) {
  const id = useId()
  const { told, error, again, act } = useDesk(() => at.call('GET', '/register?p=1'))
  const [name, setName] = useState('')
  const [peer, setPeer] = useState('')
  const [asked, setAsked] = useState('')
  const rows = told ? rowsOf(told) : []
  return (
    <section class="card stack" aria-labelledby="names">
      <div>
        <h2 id="names">{text.listTitle}</h2>
        <p class="muted small">{text.listText}</p>
      </div>
      {error !== undefined && <Failure error={error} />}
      {told && rows.length === 0 && <p class="muted">{text.none}</p>}
      <ul class="lines">
        {rows.map(row => (
          <li key={textOf(row, 'name')} class="row between">
            <div class="grow">
              <strong>{oneLine(textOf(row, 'name'), 120)}</strong>{' '}
              <span class="small muted">
                <Time at={numberOf(row, 'since')} />
              </span>
              {textOf(row, 'peer_id') && <p class="small muted mono">{textOf(row, 'peer_id')}</p>}
            </div>
            <button type="button" class="button small danger" onClick={() => setAsked(textOf(row, 'name'))}>
              {text.takeOff(oneLine(textOf(row, 'name'), 60))}
            </button>
          </li>
        ))}
      </ul>
      <form
        class="form"
        onSubmit={event => {
          event.preventDefault()
          void act(() => at.call('POST', '/register', { name, ...(peer && { peer_id: peer }) })).then(isDone => {
            if (isDone) setName('')
          })
        }}
      >
        <div class="two">
          <div class="field">
            <label for={`${id}-name`}>{text.name}</label>
            <input id={`${id}-name`} class="input" autocomplete="off" value={name} onInput={event => setName(event.currentTarget.value.trim())} />
          </div>
          <div class="field">
            <label for={`${id}-peer`}>{text.peer}</label>
            <input id={`${id}-peer`} class="input mono" autocomplete="off" spellcheck={false} value={peer} onInput={event => setPeer(event.currentTarget.value.trim())} />
          </div>
        </div>
        <div class="row">
          <button type="submit" class="button" disabled={name === ''}>
            {text.add}
          </button>
        </div>
      </form>
      {asked && (
        <Confirm
          title={text.takeOffTitle(oneLine(asked, 60))}
          text={text.takeOffText}
          action={text.takeOff(oneLine(asked, 60))}
          close={() => setAsked('')}
          act={async () => {
            await at.call('DELETE', '/register', { name: asked })
            again()
          }}
        />
      )}
    </section>
  )
}

function Problems({ at }: { at: RegistryOperator }) {
  const { told, error, again } = useDesk(() => at.call('GET', '/cleanup'))
  const [asked, setAsked] = useState(false)
  const rows = told ? rowsOf(told) : []
  return (
    <section class="card stack tight" aria-labelledby="problems">
      <h2 id="problems">{text.problems}</h2>
      {error !== undefined && <Failure error={error} />}
      {told && <p class="muted">{rows.length === 0 ? text.noStale : text.stale}</p>}
      <ul class="lines">
        {rows.slice(0, 100).map(row => (
          <li key={textOf(row, 'peer_id')} class="row between">
            <span class="grow">{oneLine(textOf(row, 'name'), 120)}</span>
            <span class="small muted">
              {text.seen} <Time at={numberOf(row, 'seen_at')} />
            </span>
          </li>
        ))}
      </ul>
      {rows.length > 0 && (
        <div class="row">
          <button type="button" class="button danger" onClick={() => setAsked(true)}>
            {text.clean(rows.length)}
          </button>
        </div>
      )}
      {asked && (
        <Confirm
          title={`${text.clean(rows.length)}?`}
          text={text.cleanText}
          action={text.clean(rows.length)}
          close={() => setAsked(false)}
          act={async () => {
            await at.call('POST', '/cleanup', {})
            again()
          }}
        />
      )}
    </section>
  )
}

function Mesh({ at }: { at: RegistryOperator }) {
  const id = useId()
  const { told, error, again, act } = useDesk(() => at.call('GET', '/mesh'))
  const [url, setUrl] = useState('')
  const [feed, setFeed] = useState(false)
  const [asked, setAsked] = useState('')
  const rows = told ? rowsOf(told) : []
  const behaved = told ? rowsOf(told, 'behaved') : []
  return (
    <section class="card stack" aria-labelledby="mesh">
      <div>
        <h2 id="mesh">{text.mesh}</h2>
        <p class="muted small">{text.meshText}</p>
      </div>
      {error !== undefined && <Failure error={error} />}
      {told && rows.length === 0 && <p class="muted">{text.none}</p>}
      <ul class="lines">
        {rows.map(row => {
          const [where, does] = [textOf(row, 'url'), textOf(row, 'does')]
          return (
            <li key={`${does} ${where}`} class="row between">
              <span class="grow">
                <span class="mono">{oneLine(where, 300)}</span> <span class="small muted">{text.does[does] ?? oneLine(does, 20)}</span>
              </span>
              <button type="button" class="button small danger" onClick={() => setAsked(where)}>
                {text.leave(oneLine(where, 60))}
              </button>
            </li>
          )
        })}
      </ul>
      {behaved.length > 0 && (
        <div class="scroll" tabIndex={0} role="group" aria-label={text.behaved}>
          <table class="table">
            <caption class="unseen">{text.behaved}</caption>
            <thead>
              <tr>
                <th scope="col">{text.member}</th>
                <th scope="col">{text.taken}</th>
                <th scope="col">{text.refused}</th>
                <th scope="col">{text.forged}</th>
                <th scope="col">{text.state}</th>
              </tr>
            </thead>
            <tbody>
              {behaved.map(row => (
                <tr key={textOf(row, 'peer_id')}>
                  <td class="mono small">{shortId(textOf(row, 'peer_id'))}</td>
                  <td>{brief(fieldOf(row, 'taken'))}</td>
                  <td>{brief(fieldOf(row, 'refused'))}</td>
                  <td>{brief(fieldOf(row, 'forged'))}</td>
                  <td>{fieldOf(row, 'cut_off') === true ? text.cutOff : ''}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      <form
        class="form"
        onSubmit={event => {
          event.preventDefault()
          void act(() => at.call('PUT', '/mesh', { url, feed })).then(isDone => {
            if (isDone) setUrl('')
          })
        }}
      >
        <div class="field">
          <label for={`${id}-url`}>{text.url}</label>
          <input id={`${id}-url`} class="input" inputMode="url" autocomplete="off" placeholder="https://registry.example" value={url} onInput={event => setUrl(event.currentTarget.value.trim())} />
        </div>
        <label class="check">
          <input type="checkbox" checked={feed} onChange={event => setFeed(event.currentTarget.checked)} />
          {text.feed}
        </label>
        <div class="row">
          <button type="submit" class="button" disabled={url === ''}>
            {text.addMesh}
          </button>
        </div>
      </form>
      {asked && (
        <Confirm
          title={text.leaveTitle(oneLine(asked, 80))}
          text={text.leaveText}
          action={text.leave(oneLine(asked, 80))}
          close={() => setAsked('')}
          act={async () => {
            await at.call('DELETE', '/mesh', { url: asked })
            again()
          }}
        />
      )}
    </section>
  )
}

function Operators({ at, told, again }: { at: RegistryOperator; told: Row; again: () => void }) {
  const [code, setCode] = useState('')
  const [asked, setAsked] = useState('')
  const [error, setError] = useState<unknown>()
  return (
    <section class="card stack" aria-labelledby="operators">
      <h2 id="operators">{text.operators}</h2>
      {error !== undefined && <Failure error={error} />}
      <ul class="lines">
        <li>
          <p class="small mono">{oneLine(textOf(told, 'owner'), 80)}</p>
          <p class="small muted">{text.owner}</p>
        </li>
        {rowsOf(told).map(row => (
          <li key={textOf(row, 'peer_id')} class="row between">
            <div class="grow">
              <p class="small mono">{oneLine(textOf(row, 'peer_id'), 80)}</p>
              <p class="small muted">
                <Time at={numberOf(row, 'since')} />
              </p>
            </div>
            <button type="button" class="button small danger" onClick={() => setAsked(textOf(row, 'peer_id'))}>
              {text.dismiss(shortId(textOf(row, 'peer_id')))}
            </button>
          </li>
        ))}
      </ul>
      <div class="row">
        <button
          type="button"
          class="button"
          onClick={() => {
            setError(undefined)
            at.call('POST', '/operators/code', {}).then(answer => setCode(textOf(answer, 'code')), setError)
          }}
        >
          {text.invite}
        </button>
      </div>
      {code && (
        <div class="stack tight" role="status">
          <CopyLine text={code} label={text.code} />
          <p class="small muted">{text.inviteText}</p>
        </div>
      )}
      {asked && (
        <Confirm
          title={text.dismissTitle(shortId(asked))}
          text={text.dismissText}
          action={text.dismiss(shortId(asked))}
          close={() => setAsked('')}
          act={async () => {
            await at.call('DELETE', '/operators', { peer_id: asked })
            again()
          }}
        />
      )}
    </section>
  )
}

function Audit({ at }: { at: RegistryOperator }) {
  const [p, setPage] = useState(1)
  const { told, error, again } = useDesk(() => at.call('GET', `/audit?p=${p}`), [p, changes.value])
  const rows = told ? rowsOf(told) : []
  const pages = told ? (numberOf(told, 'total_pages') ?? 1) : 1
  return (
    <section class="card stack tight" aria-labelledby="audit">
      <div class="row between">
        <h2 id="audit">{text.audit}</h2>
        <button type="button" class="button small" onClick={again}>
          {say.retry}
        </button>
      </div>
      {error !== undefined && <Failure error={error} />}
      {told && rows.length === 0 && <p class="muted">{text.none}</p>}
      {rows.length > 0 && (
        <div class="scroll" tabIndex={0} role="group" aria-label={text.audit}>
          <table class="table">
            <thead>
              <tr>
                <th scope="col">{text.when}</th>
                <th scope="col">{text.what}</th>
                <th scope="col">{text.with}</th>
                <th scope="col">{text.who}</th>
              </tr>
            </thead>
            <tbody>
              {rows.slice(0, 200).map((row, index) => (
                <tr key={index}>
                  <td>
                    <Time at={numberOf(row, 'at')} />
                  </td>
                  <td>{oneLine(textOf(row, 'what'), 40)}</td>
                  <td class="small">{brief(fieldOf(row, 'data'), 200)}</td>
                  <td class="mono small">{shortId(textOf(row, 'by'))}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {p < pages && (
        <div class="row">
          <button type="button" class="button" onClick={() => setPage(p + 1)}>
            {say.more}
          </button>
        </div>
      )}
    </section>
  )
}

function Stop({ at }: { at: RegistryOperator }) {
  const [asked, setAsked] = useState(false)
  const [stopped, setStopped] = useState(false)
  return (
    <div class="row">
      <button type="button" class="button danger" disabled={stopped} onClick={() => setAsked(true)}>
        {text.stop}
      </button>
      {stopped && <Note>{<p>{text.stop}</p>}</Note>}
      {asked && (
        <Confirm
          title={text.stopTitle}
          text={text.stopText}
          action={text.stop}
          close={() => setAsked(false)}
          act={async () => {
            await at.call('POST', '/shutdown', {})
            setStopped(true)
            announce(text.stop)
          }}
        />
      )}
    </div>
  )
}
