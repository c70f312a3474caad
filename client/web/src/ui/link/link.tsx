/** The page of a link: a run that somebody shared, straight from its node. */
import { useMemo, useState } from 'preact/hooks'
import { CallError, KodoError, NetworkError, DeadlineError } from '../../core/errors.ts'
import { fieldOf, numberOf, textOf } from '../../core/value.ts'
import type { LinkedRun } from '../../net/api.ts'
import { engine, patiently } from '../app.ts'
import { remember } from '../book.ts'
import { DOT, oneLine } from '../format.ts'
import { later } from '../parts/later.tsx'
import { Empty, Failure, PageHead, Skeletons, Time, useTask } from '../parts/parts.tsx'
import { Run } from '../run/run.tsx'
import { say } from '../texts.ts'
import { openedLink } from './open.ts'

const text = say.link

const InvitationPage = later(async () => (await import('./invitation.tsx')).InvitationPage)

/** `run`: one that was launched by the invitation that the link is. */
export function LinkPage({ fid, run }: { fid: string; run: string | undefined }) {
  const link = useMemo(() => openedLink(fid), [fid])
  const [opened, setOpened] = useState<LinkedRun | undefined>()
  const [error, setError] = useState<unknown>()
  const [turn, setTurn] = useState(0)
  useTask(
    async stop => {
      if (!link) return
      setError(undefined)
      try {
        const run = await patiently(() => engine().openLink(link, { signal: stop }), stop)
        remember(run.node.peerId, run.node.label === run.node.peerId ? '' : run.node.label, link.addrs)
        if (!stop.aborted) setOpened(run)
      } catch (failed) {
        if (!stop.aborted) setError(failed)
      }
    },
    [link, turn]
  )
  if (!link)
    return (
      <Empty title={text.lost.title}>
        <p>{text.lost.text}</p>
      </Empty>
    )
  if (error !== undefined) return <Dead error={error} again={() => setTurn(turn + 1)} />
  if (!opened) return <Skeletons label={text.opening} rows={2} />
  if (opened.invitation) return <InvitationPage opened={opened} invitation={opened.invitation} run={run} ended={setError} />
  return <Opened run={opened} failed={setError} />
}

function Opened({ run, failed }: { run: LinkedRun; failed: (error: unknown) => void }) {
  const { node, told } = run
  const level = numberOf(told, 'level') ?? 1
  return (
    <Run
      node={node}
      fid={run.fid}
      linked={{
        acts: false,
        ended: failed,
        head: (
          <p>
            {text.title}. {text.from} <strong>{oneLine(textOf(told, 'node') || node.label, 80)}</strong>
            {fieldOf(told, 'expires_at') !== undefined && (
              <>
                {DOT}
                {text.until} <Time at={numberOf(told, 'expires_at')} />
              </>
            )}
            {DOT}
            {text.seen[level] ?? ''}
          </p>
        )
      }}
    />
  )
}

function Dead({ error, again }: { error: unknown; again: () => void }) {
  const known = error instanceof CallError ? text.dead[error.reason] : undefined
  const isAway = error instanceof NetworkError || error instanceof DeadlineError
  const title = known?.title ?? (isAway ? text.awayTitle : undefined)
  if (title === undefined)
    return (
      <>
        <PageHead title={text.title} />
        <Failure error={error}>
          <button type="button" class="button small" onClick={again}>
            {say.retry}
          </button>
        </Failure>
      </>
    )
  return (
    <>
      <PageHead title={title} />
      <div class="empty" role="alert">
        <p>{known?.text ?? text.awayText}</p>
        {isAway && (
          <p class="empty-command">
            <button type="button" class="button" onClick={again}>
              {say.retry}
            </button>
          </p>
        )}
        {isAway && error instanceof KodoError && <p class="small">{error.message}</p>}
      </div>
    </>
  )
}
