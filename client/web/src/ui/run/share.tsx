/** Sharing a run: by a link, which its node makes and which is shown once, or with users and roles. */
import { useId, useState } from 'preact/hooks'
import { textOf, type Row } from '../../core/value.ts'
import type { NodeClient } from '../../net/api.ts'
import { ExpiryField, LevelField, MadeLink } from '../parts/made.tsx'
import { Dialog, Failure } from '../parts/parts.tsx'
import { say } from '../texts.ts'

const text = say.share
const BUILT_IN = ['operator', 'developer', 'user']

/** Read for whom a share is: `user:NAME`, `role:NAME`, a peer id, the name of a built-in role, or a user's name. */
export function sharedWith(typed: string): { users: string[]; roles: string[] } {
  const [users, roles]: [string[], string[]] = [[], []]
  for (const word of typed.split(',').map(each => each.trim())) {
    if (word === '') continue
    const [, kind, name] = /^(user|role):\s*(.*)$/.exec(word) ?? [undefined, BUILT_IN.includes(word) ? 'role' : 'user', word]
    if (name) (kind === 'user' ? users : roles).push(name)
  }
  return { users, roles }
}

export function ShareDialog({ node, fid, level: most, close }: { node: NodeClient; fid: string; level: number; close: () => void }) {
  const id = useId()
  const [level, setLevel] = useState(Math.min(1, most))
  const [hours, setHours] = useState(168)
  const [downloads, setDownloads] = useState('')
  const [made, setMade] = useState<Row | undefined>()
  const [named, setNamed] = useState(false)
  const [typed, setTyped] = useState('')
  const [acting, setActing] = useState(false)
  const [shared, setShared] = useState(false)
  const to = sharedWith(typed)
  const [error, setError] = useState<unknown>()
  const [busy, setBusy] = useState(false)
  const make = async () => {
    setBusy(true)
    setError(undefined)
    try {
      const count = Number.parseInt(downloads, 10)
      const whom = named ? { to, mode: acting ? 'x' : 'r' } : { link: true }
      const answer = await node.ask('run.share', { fid, ...whom, level, expires_s: hours * 3600, ...(count > 0 && { downloads: count }) }, { repeat: false })
      if (named) setShared(true)
      else setMade(answer)
    } catch (failed) {
      setError(failed)
    } finally {
      setBusy(false)
    }
  }
  return (
    <Dialog title={text.title} close={close}>
      {shared ? (
        <div class="stack" role="status">
          <p>{text.shared([...to.users, ...to.roles].join(', '))}</p>
          <div class="row">
            <button type="button" class="button" onClick={close}>
              {say.close}
            </button>
          </div>
        </div>
      ) : made ? (
        <MadeLink token={textOf(made, 'token')} link={textOf(made, 'link')} opens="get" about={text.once} />
      ) : (
        <form
          class="form"
          onSubmit={event => {
            event.preventDefault()
            void make()
          }}
        >
          <p class="muted">{named ? text.namedText : text.text}</p>
          <div class="field">
            <label for={`${id}-with`}>{text.with}</label>
            <select id={`${id}-with`} class="input" value={named ? 'named' : 'link'} onChange={event => setNamed(event.currentTarget.value === 'named')}>
              <option value="link">{text.byLink}</option>
              <option value="named">{text.byName}</option>
            </select>
          </div>
          {named && (
            <>
              <div class="field">
                <label for={`${id}-to`}>{text.byName}</label>
                <input id={`${id}-to`} class="input" autocomplete="off" spellcheck={false} aria-describedby={`${id}-to-about`} value={typed} onInput={event => setTyped(event.currentTarget.value)} />
                <p id={`${id}-to-about`} class="about">
                  {text.toAbout}
                </p>
              </div>
              <div class="check">
                <input id={`${id}-acting`} type="checkbox" checked={acting} onChange={event => setActing(event.currentTarget.checked)} />
                <label for={`${id}-acting`}>{text.acting}</label>
              </div>
            </>
          )}
          <LevelField label={text.level} level={level} most={most} set={setLevel} />
          <ExpiryField hours={hours} set={setHours} />
          <div class="field">
            <label for={`${id}-downloads`}>{text.downloads}</label>
            <input
              id={`${id}-downloads`}
              class="input"
              inputMode="numeric"
              placeholder={text.downloadsHint}
              aria-describedby={`${id}-about`}
              value={downloads}
              onInput={event => setDownloads(event.currentTarget.value)}
            />
            <p id={`${id}-about`} class="about">
              {text.downloadsAbout}
            </p>
          </div>
          {error !== undefined && <Failure error={error} />}
          <div class="row">
            <button type="submit" class="button main" disabled={busy || (named && to.users.length + to.roles.length === 0)}>
              {named ? text.share : text.make}
            </button>
            <button type="button" class="button" onClick={close}>
              {say.cancel}
            </button>
          </div>
        </form>
      )}
    </Dialog>
  )
}
