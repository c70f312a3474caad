/** One run: its state, events, questions and outputs, from whichever node it is on. */
import { useEffect, useState } from 'preact/hooks'
import { fieldOf, numberOf, textOf, type Row } from '../../core/value.ts'
import type { FollowedRun, NodeClient } from '../../net/api.ts'
import { announce, engine, findNode, nodeOf, now } from '../app.ts'
import { book, nameOf, remember } from '../book.ts'
import { brief, dotted, duration, exact, oneLine } from '../format.ts'
import { CopyButton, Confirm, Failure, Note, PageHead, State, type StateWord, useTask } from '../parts/parts.tsx'
import { ShareIcon } from '../parts/icons.tsx'
import { Way } from '../parts/way.tsx'
import { go, paths } from '../router.ts'
import { Tree } from '../show/data.tsx'
import { say } from '../texts.ts'
import { Events, exported } from './events.tsx'
import { readTold, stateOf, type Told, useFollowed } from './follow.ts'
import { Outputs } from './outputs.tsx'
import { Questions } from './questions.tsx'
import { ShareDialog } from './share.tsx'
import { Login } from '../me/login.tsx'
import { CallError } from '../../core/errors.ts'

const text = say.run

/** Find the node of a run, by peer id or by a name that this browser knows. */
export function RunPage({ node: named, fid, lock }: { node: string; fid: string; lock: string | undefined }) {
  const [peerId, setPeerId] = useState<string | undefined>()
  const [error, setError] = useState<unknown>()
  useTask(
    async stop => {
      try {
        const found = await peerOf(named)
        const known = await engine().knownRuns.get(fid)
        if (known?.peerId === found && !book.peek().has(found)) remember(found, '', known.addrs)
        await findNode(found, stop)
        if (!stop.aborted) setPeerId(found)
      } catch (failed) {
        if (!stop.aborted) setError(failed)
      }
    },
    [named, fid]
  )
  if (error !== undefined) return <Failure error={error} />
  return peerId === undefined ? null : <Run key={`${peerId} ${fid}`} node={nodeOf(peerId)} fid={fid} wanted={lock} />
}

async function peerOf(named: string): Promise<string> {
  const pinned = await engine().pins.get(named)
  if (pinned !== undefined) return pinned
  return [...book.peek().values()].find(each => each.name === named)?.peerId ?? named
}

interface Linked {
  head: preact.ComponentChildren
  /** Whether its questions may be answered and it may be killed, as by an invitation; nothing else is changed by a link. */
  acts: boolean
  /** Called when the link has ended while the run was looked at. */
  ended: (error: unknown) => void
}

interface RunProps {
  node: NodeClient
  fid: string
  /** The question that the address leads to. */
  wanted?: string | undefined
  /** Of a link: what the share says. */
  linked?: Linked
}

export function Run({ node, fid, wanted, linked }: RunProps) {
  const { run, version } = useFollowed(node, fid)
  const [told, setTold] = useState<Told | undefined>()
  const { view } = run
  const state = stateOf(run, told)
  const isQueued = state === 'queued'

  // What is not among the events: whose run it is, and its place in the queue.
  const [look, setLook] = useState(0)
  useTask(
    async stop => {
      const answer = await node.ask('run.state', { fid }, { signal: stop })
      if (stop.aborted) return
      setTold(readTold(answer))
    },
    [node, fid, view.state, look, run.status === 'failed']
  )
  useEffect(() => {
    if (!isQueued) return undefined
    const timer = setInterval(() => setLook(before => before + 1), 2000)
    return () => clearInterval(timer)
  }, [isQueued])
  useEffect(() => {
    if (run.view.lastSeq > 0) announce(text.announce(state))
  }, [state])

  const name = textOf(view.flow, 'name') || textOf(told?.row ?? {}, 'name') || fid
  useEffect(() => {
    if (run.error instanceof CallError && run.error.code === 410) linked?.ended(run.error)
  }, [run.error])
  useEffect(() => {
    document.title = `${state} · ${oneLine(name, 80)} – kodo`
  }, [state, name])
  useEffect(() => {
    const path = textOf(view.flow, 'path')
    // At the node of a link nobody need have runs of their own.
    if (path && !linked) remember(node.peerId, node.label === node.peerId ? '' : node.label, [], { used: true })
  }, [view.flow, node])

  if (run.status === 'failed' && view.lastSeq === 0 && run.error) {
    const login = run.error instanceof CallError && run.error.reason === 'login-needed'
    return (
      <>
        <PageHead title={oneLine(name, 160)} />
        <Failure error={run.error} />
        {login && <Login at={node} done={() => location.reload()} />}
        <p>
          <a href={paths.runs()}>{say.runs}</a>
        </p>
      </>
    )
  }
  const final = view.final && fieldOf(view.final, 'result')
  const isOwn = !linked && (told?.own ?? true)
  const canAnswer = linked?.acts ?? true
  const locks = [...view.locks.values()]
  // Until then a question may be open that has not been read yet.
  const isRead = told !== undefined && view.lastSeq >= (numberOf(told.row, 'last_seq') ?? 0)
  return (
    <>
      <Head run={run} state={state} name={name} told={told} isOwn={isOwn} linked={linked} />
      {run.status === 'away' && (
        <Note kind="warn" title={say.away}>
          <p>{text.away}</p>
        </Note>
      )}
      {run.status === 'failed' && run.error && <Failure error={run.error} />}
      {view.fatal && <Fatal fatal={view.fatal} />}
      {canAnswer && <Questions node={node} fid={fid} locks={locks} over={view.over} wanted={wanted} isRead={isRead} />}
      <Outputs node={node} fid={fid} outputs={[...view.outputs.values()]} over={view.over} result={final} linked={linked !== undefined} />
      <Events run={run} version={version} />
    </>
  )
}

function Fatal({ fatal }: { fatal: Row }) {
  const traceback = textOf(fatal, 'traceback')
  return (
    <Note kind="bad" title={oneLine(`${text.error}: ${textOf(fatal, 'type')}`, 200)}>
      <p class="pre-line">{textOf(fatal, 'message').slice(0, 4000)}</p>
      {traceback && (
        <details>
          <summary>{text.details}</summary>
          <pre class="plain" tabIndex={0}>
            {traceback.slice(0, 100_000)}
          </pre>
        </details>
      )}
    </Note>
  )
}

function percentOf(progress: Row | undefined): number | undefined {
  if (!progress) return undefined
  const [percent, done, total] = ['percent', 'done', 'total'].map(key => fieldOf(progress, key)).map(value => (typeof value === 'bigint' ? Number(value) : value))
  const found = typeof percent === 'number' ? percent : typeof done === 'number' && typeof total === 'number' && total > 0 ? (done / total) * 100 : undefined
  return found === undefined || !Number.isFinite(found) ? undefined : Math.min(100, Math.max(0, found))
}

function progressText(progress: Row | undefined): string {
  if (!progress) return ''
  const [done, total] = [fieldOf(progress, 'done'), fieldOf(progress, 'total')]
  const counted = done !== undefined && done !== null ? `${brief(done, 30)}${total !== undefined && total !== null ? ` / ${brief(total, 30)}` : ''}` : ''
  return oneLine(dotted(textOf(progress, 'text'), counted), 300)
}

interface HeadProps {
  run: FollowedRun
  state: StateWord
  name: string
  told: Told | undefined
  isOwn: boolean
  linked: RunProps['linked']
}

function Head({ run, state, name, told, isOwn, linked }: HeadProps) {
  const { view, node, fid } = run
  const [asked, setAsked] = useState<'kill' | 'delete' | 'share' | undefined>()
  const [me, setMe] = useState('')
  useEffect(() => void engine().identity.peerId().then(setMe, () => undefined), [])
  const [failed, setFailed] = useState<unknown>()
  const end = view.over ? view.modified : Math.max(now.value, view.modified)
  const percent = percentOf(view.progress)
  const steps = [...view.steps.values()].filter(step => textOf(step, 'parent') !== '')
  const act = (what: () => Promise<void>) => {
    setFailed(undefined)
    what().catch(setFailed)
  }
  const again = async () => {
    const answer = await node.ask('run.restart', { fid }, { repeat: false })
    const next = textOf(answer, 'fid')
    await engine().knownRuns.remember(next, { peerId: node.peerId, addrs: book.peek().get(node.peerId)?.addrs ?? [] })
    go(paths.run(node.peerId, next))
  }
  const path = textOf(view.flow, 'path')
  const changed = path ? paths.flow(node.peerId, path, fid) : undefined
  const save = () => {
    const url = URL.createObjectURL(exported(run))
    const link = document.createElement('a')
    link.href = url
    link.download = `${fid}.json`
    link.click()
    setTimeout(() => URL.revokeObjectURL(url), 60_000)
  }
  return (
    <>
      <PageHead title={oneLine(name, 160)} aside={isOwn || linked?.acts ? <Buttons {...{ state, save, changed, isOwn, ask: setAsked, again: () => act(again) }} /> : null}>
        {linked?.head ?? (
          <p>
            {text.node} <a href={paths.flows('', node.peerId)}>{oneLine(nameOf(node.peerId), 80)}</a>
          </p>
        )}
      </PageHead>
      <section class="card stack tight" aria-label={text.state}>
        <div class="row run-state">
          <State state={state} />
          {view.created > 0 && (
            <span class="muted small" title={exact(view.created)}>
              {text.elapsed} {duration((end - view.created) / 1000)}
            </span>
          )}
          <span class="muted small">
            <Way node={node} />
          </span>
          {state === 'queued' && told?.queued !== undefined && <span class="muted small">{text.queue(told.queued)}</span>}
          {run.status === 'connecting' && view.lastSeq === 0 && (
            <span class="muted small" role="status">
              {text.connecting}
            </span>
          )}
        </div>
        {!view.over && (view.progress !== undefined || state === 'running') && (
          <div class="stack tight">
            <progress class="meter" aria-label={text.progress} max={100} value={percent} />
            <span class="small muted">
              {dotted(percent !== undefined && `${Math.round(percent)} %`, progressText(view.progress))}
            </span>
          </div>
        )}
        {!view.over && steps.length > 0 && (
          <details>
            <summary>
              {text.steps} ({steps.length})
            </summary>
            <ul class="stack tight">
              {steps.slice(-50).map((step, index) => (
                <li key={index} class="step">
                  <progress class="meter" aria-label={progressText(step) || text.progress} max={100} value={percentOf(step)} />
                  <span class="small">{progressText(step)}</span>
                </li>
              ))}
            </ul>
          </details>
        )}
        <details>
          <summary>{text.details}</summary>
          <div class="stack">
            <dl class="facts">
              <dt>FID</dt>
              <dd class="mono">{fid}</dd>
              <dt>{text.nodePeer}</dt>
              <dd class="mono">{node.peerId}</dd>
              <dt>{text.myPeer}</dt>
              <dd class="mono">{me}</dd>
              {view.created > 0 && (
                <>
                  <dt>{text.launched}</dt>
                  <dd>{exact(view.created)}</dd>
                </>
              )}
            </dl>
            {Object.keys(view.inputs).length > 0 && (
              <div>
                <h3>{text.inputs}</h3>
                <Tree value={view.inputs} />
              </div>
            )}
            <div class="row">
              <CopyButton small text={`koco follow ${node.peerId}/${fid}`} label="koco follow …" />
            </div>
          </div>
        </details>
        {failed !== undefined && <Failure error={failed} />}
      </section>
      {asked === 'kill' && (
        <Confirm title={text.killTitle} text={text.killText} action={text.killAct} close={() => setAsked(undefined)} act={() => node.ask('run.kill', { fid }).then(() => undefined)} />
      )}
      {asked === 'delete' && (
        <Confirm
          title={text.deleteTitle}
          text={text.deleteText}
          action={text.deleteAct}
          close={() => setAsked(undefined)}
          act={async () => {
            await node.ask('run.delete', { fid })
            await engine().knownRuns.forget(fid)
            announce(text.deleted)
            go(paths.runs())
          }}
        />
      )}
      {asked === 'share' && <ShareDialog node={node} fid={fid} level={told?.level ?? 2} close={() => setAsked(undefined)} />}
    </>
  )
}

interface ButtonsProps {
  state: StateWord
  ask: (what: 'kill' | 'delete' | 'share') => void
  again: () => void
  /** Where the form of the flow is, with the inputs of this run; undefined while the flow is not known. */
  changed: string | undefined
  isOwn: boolean
  save: () => void
}

function Buttons({ state, ask, again, changed, isOwn, save }: ButtonsProps) {
  const over = state === 'done' || state === 'error'
  return (
    <div class="row">
      {isOwn && (
        <>
          <button type="button" class="button" onClick={() => ask('share')}>
            <ShareIcon />
            {text.share}
          </button>
          <button type="button" class="button" onClick={again}>
            {text.again}
          </button>
        </>
      )}
      {isOwn && changed !== undefined && (
        <a class="button" href={changed} title={text.changeAbout}>
          {text.change}
        </a>
      )}
      <button type="button" class="button" title={text.exportAbout} onClick={save}>
        {text.export}
      </button>
      {over && isOwn && (
        <button type="button" class="button danger" onClick={() => ask('delete')}>
          {text.delete}
        </button>
      )}
      {!over && (
        <button type="button" class="button danger" onClick={() => ask('kill')}>
          {text.kill}
        </button>
      )}
    </div>
  )
}

