/** Sharing a run: by a link, which its node makes and which is shown once, or with users and roles. */
import { useId, useState } from 'preact/hooks'
import { textOf } from '../../core/value.ts'
import type { NodeClient } from '../../net/api.ts'
import { host } from '../host.ts'
import { CopyLine, Dialog, Failure } from '../parts/parts.tsx'
import { say } from '../texts.ts'

const text = say.share
const HOURS: [number, string][] = [
  [1, '1 hour'],
  [24, '1 day'],
  [168, '7 days'],
  [720, '30 days']
]

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
  const [token, setToken] = useState('')
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
      else setToken(textOf(answer, 'token'))
    } catch (failed) {
      setError(failed)
    } finally {
      setBusy(false)
    }
  }
  const isLocal = host.value.kind !== 'registry' || /^https?:\/\/(127\.|localhost|\[::1\])/.test(location.origin)
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
      ) : token ? (
        <div class="stack" role="status">
          <p>{text.once}</p>
          <div class="stack tight">
            <h3>{text.page}</h3>
            <CopyLine text={`${location.origin}/#get=${token}`} label={text.page} />
          </div>
          <div class="stack tight">
            <h3>{text.koco}</h3>
            <CopyLine text={`kodo:${token}`} label={text.koco} />
          </div>
          {isLocal && <p class="small muted">{text.local}</p>}
        </div>
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
          <div class="field">
            <label for={`${id}-level`}>{text.level}</label>
            <select id={`${id}-level`} class="input" value={String(level)} onChange={event => setLevel(Number(event.currentTarget.value))}>
              {text.levels.slice(0, most + 1).map((word, index) => (
                <option key={index} value={String(index)}>
                  {word}
                </option>
              ))}
            </select>
          </div>
          <div class="field">
            <label for={`${id}-hours`}>{text.expires}</label>
            <select id={`${id}-hours`} class="input" value={String(hours)} onChange={event => setHours(Number(event.currentTarget.value))}>
              {HOURS.map(([count, word]) => (
                <option key={count} value={String(count)}>
                  {word}
                </option>
              ))}
            </select>
          </div>
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
