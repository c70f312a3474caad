/** An invitation: the form of the flow that its holder may launch, and the runs that were launched by it. */
import { useMemo, useState } from 'preact/hooks'
import { CallError } from '../../core/errors.ts'
import { fieldOf, isRow, numberOf, textOf, type Row } from '../../core/value.ts'
import type { LinkedRun } from '../../net/api.ts'
import { shortId } from '../book.ts'
import { Form } from '../form/form.tsx'
import { completed } from '../flows/prefill.ts'
import { DOT, oneLine } from '../format.ts'
import { Note, PageHead, State, Time, useTask } from '../parts/parts.tsx'
import { go, paths } from '../router.ts'
import { Run } from '../run/run.tsx'
import { readRun, type RunRow } from '../runs/runs.ts'
import { say } from '../texts.ts'

const text = say.invite
const MOST_RUNS = 200

interface InvitationProps {
  opened: LinkedRun
  invitation: Row
  /** The run of it that is looked at. */
  run: string | undefined
  /** Called when the invitation has ended. */
  ended: (error: unknown) => void
}

export function InvitationPage({ opened, invitation, run, ended }: InvitationProps) {
  const { node, fid: sid } = opened
  if (run === undefined) return <Invited opened={opened} invitation={invitation} ended={ended} />
  const head = (
    <p>
      <a href={paths.link(sid)}>{text.back}</a>
      {DOT}
      {say.run.node} <strong>{oneLine(node.label, 80)}</strong>
    </p>
  )
  return <Run key={run} node={node} fid={run} linked={{ head, acts: true, ended }} />
}

function Invited({ opened, invitation, ended }: Omit<InvitationProps, 'run'>) {
  const { node, told, fid: sid } = opened
  const name = textOf(invitation, 'name') || textOf(invitation, 'path')
  const maker = textOf(invitation, 'by')
  const by = /^12D3Koo/.test(maker) ? shortId(maker) : oneLine(maker, 120)
  const note = textOf(invitation, 'note')
  const given = fieldOf(invitation, 'schema')
  const schema = useMemo(() => (given !== undefined && isRow(given) ? given : {}), [given])
  const inputs = fieldOf(invitation, 'inputs')
  const initial = useMemo(() => completed(schema, inputs !== undefined && isRow(inputs) ? inputs : {}), [schema, inputs])
  const [key] = useState(() => crypto.randomUUID())
  const [runs, setRuns] = useState<RunRow[]>([])
  const most = numberOf(invitation, 'launches') ?? 0
  const launched = Math.max(numberOf(invitation, 'launched') ?? 0, runs.length)
  const isUsedUp = launched >= most
  useTask(
    async stop => {
      try {
        const found: RunRow[] = []
        for await (const row of node.pages('run.list', {}, { signal: stop })) {
          found.push(readRun(row, node.peerId))
          if (found.length >= MOST_RUNS) break
        }
        if (!stop.aborted) setRuns(found)
      } catch (error) {
        if (!stop.aborted && error instanceof CallError && error.code === 410) ended(error)
      }
    },
    [node]
  )
  const launch = async (filled: unknown) => {
    try {
      const answer = await node.ask('run.launch', { path: textOf(invitation, 'path'), inputs: filled as Row, key, strict: true })
      go(paths.link(sid, textOf(answer, 'fid')))
    } catch (error) {
      if (error instanceof CallError && error.code === 410 && error.reason !== 'used-up') ended(error)
      throw error
    }
  }
  return (
    <>
      <PageHead title={oneLine(name, 160)}>
        <p>
          <strong>{by}</strong> {text.by}
          {DOT}
          {say.run.node} {oneLine(node.label, 80)}
        </p>
      </PageHead>
      {note && (
        <Note title={text.noted(by)}>
          <p class="pre-line">{note.slice(0, 500)}</p>
        </Note>
      )}
      {isUsedUp && (
        <Note kind="warn" title={text.usedUp}>
          <p>{text.usedUpText}</p>
        </Note>
      )}
      <div class="two">
        {!isUsedUp && (
          <section class="card stack" aria-labelledby="inputs">
            <h2 id="inputs">{say.flow.inputs}</h2>
            <Form schema={schema} name={name} initial={initial} node={node} action={say.flow.launch} send={launch} />
            <p class="small muted">{say.flow.private}</p>
          </section>
        )}
        <section class="card stack tight">
          {textOf(invitation, 'description') && <p class="description">{textOf(invitation, 'description').slice(0, 8192)}</p>}
          <p class="small muted">{fieldOf(invitation, 'see') === true ? text.seen : text.unseen}</p>
          <p class="small muted">
            {text.launched(launched, most)}
            {DOT}
            {say.link.until} <Time at={numberOf(told, 'expires_at')} />
          </p>
          <h2 class="after">{text.runs}</h2>
          {runs.length === 0 ? (
            <p class="muted">{text.none}</p>
          ) : (
            <ul class="stack tight">
              {runs.map(run => (
                <li key={run.fid} class="row">
                  <State state={run.state} />
                  <a href={paths.link(sid, run.fid)}>
                    {oneLine(run.name, 120)}, <Time at={run.created} />
                  </a>
                </li>
              ))}
            </ul>
          )}
          <p class="small muted">{text.keep}</p>
        </section>
      </div>
    </>
  )
}
