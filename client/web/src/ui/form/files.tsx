/** A list of files: chosen, or dropped or pasted, with folders too; each is sent at once, and goes on after a break. */
import { useEffect, useId, useRef, useState } from 'preact/hooks'
import { UsageError } from '../../core/errors.ts'
import type { UploadHandle } from '../../net/api.ts'
import { explain } from '../app.ts'
import { bytes, dotted, oneLine } from '../format.ts'
import { CrossIcon } from '../parts/icons.tsx'
import { say } from '../texts.ts'
import { Fieldset, type FieldProps, titleOf } from './field.tsx'
import { brought, chosen, MAX_FILES, type Named } from './gather.ts'
import { type Draft, Unread } from './schema.ts'

const text = say.form
/** Files that are sent at once; a node takes more, but they would share one line. */
const AT_ONCE = 3

/** What is known of an element of the list: of one that is being sent, and of one that was. */
interface Sent {
  name: string
  size: number
  bytes: number
  file: File
  handle?: UploadHandle | undefined
  error?: unknown
}

export function Files(props: FieldProps) {
  const { draft, at, place, needed } = props
  const id = useId()
  const [, redraw] = useState(0)
  const [error, setError] = useState<unknown>()
  const folder = useRef<HTMLInputElement>(null)
  const known = useRef(new Map<Draft, Sent>()).current
  // Files arrive between two drawings: both are always the latest.
  const list = useRef<Draft[]>([])
  const set = useRef(props.set)
  list.current = Array.isArray(draft) ? (draft as Draft[]) : []
  set.current = props.set
  useEffect(() => () => known.forEach(each => each.handle?.cancel()), [])

  const put = (next: Draft[]) => {
    for (const gone of list.current.filter(each => !next.includes(each))) known.get(gone)?.handle?.cancel()
    list.current = next
    set.current(next)
  }
  const send = async (mark: Unread, sent: Sent) => {
    const handle = (sent.handle = place.node.upload(sent.file, sent.name))
    const stop = handle.on(({ bytes }) => {
      sent.bytes = bytes
      redraw(turn => turn + 1)
    })
    try {
      const upload = await handle.done
      known.set(upload, { ...sent, bytes: sent.size, handle: undefined })
      if (list.current.includes(mark)) put(list.current.map(each => (each === mark ? upload : each)))
    } catch (failed) {
      sent.error = failed
    } finally {
      stop()
      sent.handle = undefined
      redraw(turn => turn + 1)
      pump()
    }
  }
  const pump = () => {
    const open = list.current.flatMap(mark => {
      const sent = known.get(mark)
      return mark instanceof Unread && sent && sent.error === undefined ? [{ mark, sent }] : []
    })
    const free = AT_ONCE - open.filter(({ sent }) => sent.handle).length
    for (const { mark, sent } of open.filter(each => !each.sent.handle).slice(0, free)) void send(mark, sent)
  }
  const take = async (found: () => Named[] | Promise<Named[]>) => {
    setError(undefined)
    try {
      const named = await found()
      const names = new Set(named.map(({ name }) => name))
      // A file that is chosen again takes the place of the one before.
      const kept = list.current.filter(each => !names.has(known.get(each)?.name ?? ''))
      if (kept.length + named.length > MAX_FILES) throw new UsageError(text.manyFiles(MAX_FILES))
      const marks = named.map(({ file, name }) => {
        const mark = new Unread(name, text.sending)
        known.set(mark, { name, file, size: file.size, bytes: 0 })
        return mark
      })
      put([...kept, ...marks])
      pump()
    } catch (failed) {
      setError(failed)
    }
  }
  const again = (sent: Sent) => {
    sent.error = undefined
    redraw(turn => turn + 1)
    pump()
  }

  const elements = list.current
  const all = elements.map(each => known.get(each))
  const size = all.reduce((sum, each) => sum + (each?.size ?? 0), 0)
  const there = elements.filter(each => typeof each === 'string').length
  const isWrong = [...place.faults.keys()].some(each => each === at || each.startsWith(`${at}/`))
  return (
    <Fieldset props={props}>
      <div
        class="drop"
        onDragOver={event => event.preventDefault()}
        onDrop={event => {
          event.preventDefault()
          const { dataTransfer } = event
          if (dataTransfer && dataTransfer.items.length > 0) void take(takenFrom(dataTransfer))
        }}
        onPaste={event => {
          const { clipboardData } = event
          if (!clipboardData || clipboardData.files.length === 0) return
          event.preventDefault()
          void take(takenFrom(clipboardData))
        }}
      >
        <div class="row">
          <label class="unseen" for={id}>
            {titleOf(props)}
          </label>
          <input
            id={id}
            type="file"
            multiple
            aria-invalid={isWrong}
            aria-required={needed}
            onChange={event => {
              const field = event.currentTarget
              void take(() => chosen(field.files ?? [])).then(() => (field.value = ''))
            }}
          />
          <input
            ref={field => {
              folder.current = field
              if (field) field.webkitdirectory = true
            }}
            type="file"
            hidden
            onChange={event => {
              const field = event.currentTarget
              void take(() => chosen(field.files ?? [])).then(() => (field.value = ''))
            }}
          />
          <button type="button" class="button small" onClick={() => folder.current?.click()}>
            {text.chooseFolder}
          </button>
        </div>
        <p class="small muted">{text.dropFiles}</p>
        {elements.length > 0 && (
          <div class="row between small">
            <span role="status">
              {dotted(text.files(elements.length, bytes(size)), text.filesThere(there, elements.length))}
            </span>
            {elements.length > 1 && (
              <button type="button" class="button plain small" onClick={() => put([])}>
                {text.removeAll}
              </button>
            )}
          </div>
        )}
        {elements.length > 0 && (
          <ul class="files small">
            {elements.map((each, index) => (
              <Item key={index} sent={all[index]} isThere={typeof each === 'string'} fault={each instanceof Unread ? undefined : place.faults.get(`${at}/${index}`)} again={again} remove={() => put(elements.filter(other => other !== each))} />
            ))}
          </ul>
        )}
        {error !== undefined && (
          <p class="fault" role="alert">
            {explain(error).title}
          </p>
        )}
      </div>
    </Fieldset>
  )
}

/** What an event brings is read in the event itself. */
function takenFrom(data: DataTransfer): () => Promise<Named[]> {
  const found = brought(data)
  found.catch(() => undefined)
  return () => found
}

interface ItemProps {
  sent: Sent | undefined
  isThere: boolean
  fault: string | undefined
  again: (sent: Sent) => void
  remove: () => void
}

function Item({ sent, isThere, fault, again, remove }: ItemProps) {
  const name = sent ? oneLine(sent.name, 500) : text.before
  const state = !sent || isThere ? (sent ? bytes(sent.size) : '') : sent.handle ? text.sent(bytes(sent.bytes), bytes(sent.size)) : text.waits
  return (
    <li>
      <div class="file">
        <span class="file-name">{name}</span>
        {sent?.error === undefined && <span class="muted">{state}</span>}
        {sent?.error !== undefined && (
          <button type="button" class="button plain small" onClick={() => again(sent)}>
            {text.sendAgain}
          </button>
        )}
        <button type="button" class="button plain small" aria-label={text.remove(name)} onClick={remove}>
          <CrossIcon />
        </button>
      </div>
      {sent?.error !== undefined && <p class="fault">{explain(sent.error).title}</p>}
      {fault !== undefined && <p class="fault">{fault}</p>}
    </li>
  )
}
