/** Users of a node whose provider is `local`: who they are, what they may do, and how a device of theirs is let in. */
import { useId, useState } from 'preact/hooks'
import { CallError } from '../../core/errors.ts'
import { fieldOf, textOf, type Row } from '../../core/value.ts'
import type { AccountDesk } from '../../net/api.ts'
import { oneLine } from '../format.ts'
import { LineForm } from '../parts/line.tsx'
import { Confirm, CopyLine, Failure, useTask } from '../parts/parts.tsx'
import { CrossIcon } from '../parts/icons.tsx'
import { say } from '../texts.ts'
import { words } from './words.ts'

const text = say.nodePage
const ROLE = /^[\w-]+$|^developer:/

export function Users({ node }: { node: AccountDesk }) {
  const [rows, setRows] = useState<Row[] | undefined>()
  const [without, setWithout] = useState(false)
  const [error, setError] = useState<unknown>()
  const [turn, setTurn] = useState(0)
  const again = () => setTurn(before => before + 1)
  useTask(
    async stop => {
      try {
        const found: Row[] = []
        for await (const row of node.pages('user.list', { pp: 20 })) {
          found.push(row)
          if (stop.aborted || found.length >= 1000) break
        }
        if (!stop.aborted) setRows(found)
      } catch (failed) {
        if (stop.aborted) return
        if (failed instanceof CallError && (failed.reason === 'no-users' || failed.reason === 'no-login')) setWithout(true)
        else setError(failed)
      }
    },
    [node, turn]
  )
  return (
    <section class="card stack" aria-labelledby="users">
      <h2 id="users">{text.users}</h2>
      {error !== undefined && <Failure error={error} />}
      {without && <p class="muted">{text.noUsers}</p>}
      {rows && (
        <>
          <ul class="stack">
            {rows.map(row => (
              <User key={textOf(row, 'name')} node={node} row={row} again={again} />
            ))}
          </ul>
          <LineForm label={text.addUser} action={text.addUser} hint={text.userName} send={name => node.ask('user.add', { name }).then(again)} />
        </>
      )}
    </section>
  )
}

function User({ node, row, again }: { node: AccountDesk; row: Row; again: () => void }) {
  const id = useId()
  const name = textOf(row, 'name')
  const [open, setOpen] = useState(false)
  const [what, setWhat] = useState('')
  const [code, setCode] = useState('')
  const [removing, setRemoving] = useState(false)
  const [error, setError] = useState<unknown>()
  const act = (op: string, args: { [key: string]: string }) => {
    setError(undefined)
    node.ask(op, args).then(() => {
      setWhat('')
      again()
    }, setError)
  }
  const given = [...words(fieldOf(row, 'roles')).map(each => ['role', each] as const), ...words(fieldOf(row, 'grants')).map(each => ['grant', each] as const)]
  return (
    <li class="stack tight">
      <div class="row between">
        <strong>{oneLine(name, 80)}</strong>
        <div class="row">
          <button type="button" class="button small" aria-expanded={open} onClick={() => setOpen(!open)}>
            {text.enrol}
          </button>
          <button type="button" class="button small danger" onClick={() => setRemoving(true)}>
            {text.removeUser(oneLine(name, 40))}
          </button>
        </div>
      </div>
      <div class="chips">
        {given.map(([kind, each]) => (
          <span key={`${kind} ${each}`} class="chip">
            {oneLine(each, 120)}
            <button
              type="button"
              class="button plain small"
              aria-label={text.takeAway(oneLine(each, 60))}
              onClick={() => (kind === 'role' ? act('role.unassign', { user: name, role: each }) : act('grant.remove', { user: name, grant: each }))}
            >
              <CrossIcon />
            </button>
          </span>
        ))}
      </div>
      <form
        class="row"
        onSubmit={event => {
          event.preventDefault()
          if (ROLE.test(what)) act('role.assign', { user: name, role: what })
          else act('grant.add', { user: name, grant: what })
        }}
      >
        <label class="unseen" for={`${id}-what`}>
          {text.grantWhat}
        </label>
        <input id={`${id}-what`} class="input grow" autocomplete="off" placeholder={text.grantHint} value={what} onInput={event => setWhat(event.currentTarget.value)} />
        <button type="submit" class="button small" disabled={what === ''}>
          {text.grant}
        </button>
      </form>
      {open && (
        <div class="stack tight">
          <LineForm
            label={text.enrolPeer}
            action={text.enrol}
            mono
            send={async peer => setCode(textOf(await node.ask('user.enrol', { name, peer_id: peer }), 'code'))}
          />
          {code && (
            <div role="status" class="stack tight">
              <CopyLine text={code} label={text.enrolCode} />
              <p class="small muted">{text.enrolAbout}</p>
            </div>
          )}
        </div>
      )}
      {error !== undefined && <Failure error={error} />}
      {removing && (
        <Confirm
          title={text.removeUserTitle(oneLine(name, 40))}
          text={text.removeUserText}
          action={text.removeUser(oneLine(name, 40))}
          close={() => setRemoving(false)}
          act={async () => {
            await node.ask('user.remove', { name })
            again()
          }}
        />
      )}
    </li>
  )
}
