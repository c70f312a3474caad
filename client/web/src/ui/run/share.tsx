/** Sharing a run by a link: made by its node, shown once. */
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

export function ShareDialog({ node, fid, level: most, close }: { node: NodeClient; fid: string; level: number; close: () => void }) {
  const id = useId()
  const [level, setLevel] = useState(Math.min(1, most))
  const [hours, setHours] = useState(168)
  const [downloads, setDownloads] = useState('')
  const [token, setToken] = useState('')
  const [error, setError] = useState<unknown>()
  const [busy, setBusy] = useState(false)
  const make = async () => {
    setBusy(true)
    setError(undefined)
    try {
      const count = Number.parseInt(downloads, 10)
      const answer = await node.ask(
        'run.share',
        { fid, link: true, level, expires_s: hours * 3600, ...(count > 0 && { downloads: count }) },
        { repeat: false }
      )
      setToken(textOf(answer, 'token'))
    } catch (failed) {
      setError(failed)
    } finally {
      setBusy(false)
    }
  }
  const isLocal = host.value.kind !== 'registry' || /^https?:\/\/(127\.|localhost|\[::1\])/.test(location.origin)
  return (
    <Dialog title={text.title} close={close}>
      {token ? (
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
          <p class="muted">{text.text}</p>
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
            <button type="submit" class="button main" disabled={busy}>
              {text.make}
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
