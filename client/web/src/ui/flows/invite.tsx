/** Inviting others to a flow: a link by which they launch it without an account. */
import { useId, useState } from 'preact/hooks'
import { textOf, type Row, type Value } from '../../core/value.ts'
import { chosenNode } from '../app.ts'
import { remember } from '../book.ts'
import { oneLine } from '../format.ts'
import { ExpiryField, LevelField, MadeLink } from '../parts/made.tsx'
import { Dialog, Failure } from '../parts/parts.tsx'
import { say } from '../texts.ts'

const text = say.invite
const MAX_LAUNCHES = 10_000
const MAX_NOTE = 500

interface InviteProps {
  peerId: string
  path: string
  name: string
  /** What the form begins with. */
  inputs: Value
  close: () => void
}

export function InviteDialog({ peerId, path, name, inputs, close }: InviteProps) {
  const id = useId()
  const [launches, setLaunches] = useState('5')
  const [hours, setHours] = useState(168)
  const [level, setLevel] = useState(1)
  const [note, setNote] = useState('')
  const [see, setSee] = useState(false)
  const [made, setMade] = useState<Row | undefined>()
  const [error, setError] = useState<unknown>()
  const [busy, setBusy] = useState(false)
  const count = /^\d{1,5}$/.test(launches.trim()) ? Number(launches) : 0
  const make = async () => {
    setBusy(true)
    setError(undefined)
    try {
      const terms = { launches: count, expires_s: hours * 3600, level, note, see }
      const node = await chosenNode(peerId)
      setMade(await node.ask('invitation.add', { path, inputs, ...terms }, { repeat: false }))
      remember(peerId, '', [], { used: true })
    } catch (failed) {
      setError(failed)
    } finally {
      setBusy(false)
    }
  }
  return (
    <Dialog title={text.title(oneLine(name, 80))} close={close}>
      {made ? (
        <MadeLink token={textOf(made, 'token')} link={textOf(made, 'link')} opens="open" about={text.once} />
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
            <label for={`${id}-launches`}>{text.launches}</label>
            <input
              id={`${id}-launches`}
              class="input short"
              inputMode="numeric"
              autocomplete="off"
              aria-invalid={count < 1 || count > MAX_LAUNCHES}
              value={launches}
              onInput={event => setLaunches(event.currentTarget.value)}
            />
          </div>
          <ExpiryField hours={hours} set={setHours} />
          <LevelField label={text.level} level={level} most={2} set={setLevel} />
          <div class="field">
            <label for={`${id}-note`}>{text.note}</label>
            <textarea id={`${id}-note`} class="input" rows={2} maxLength={MAX_NOTE} value={note} onInput={event => setNote(event.currentTarget.value)} />
          </div>
          <div class="check">
            <input id={`${id}-see`} type="checkbox" checked={see} onChange={event => setSee(event.currentTarget.checked)} />
            <label for={`${id}-see`}>{text.see}</label>
          </div>
          {error !== undefined && <Failure error={error} />}
          <div class="row">
            <button type="submit" class="button main" disabled={busy || count < 1 || count > MAX_LAUNCHES}>
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
