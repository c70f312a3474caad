/** One place of a form: its label, description and fault, and the fields that need more than one line of code. */
import type { ComponentChildren } from 'preact'
import { useEffect, useId, useRef, useState } from 'preact/hooks'
import type { Row, Value } from '../../core/value.ts'
import type { NodeClient, UploadHandle } from '../../net/api.ts'
import { explain } from '../app.ts'
import { bytes, json } from '../format.ts'
import { say } from '../texts.ts'
import { type Draft, type Field, Unread } from './schema.ts'

export interface Place {
  root: Row
  node: NodeClient
  faults: ReadonlyMap<string, string>
  /** Places that have a field, which shows its fault. */
  met: Set<string>
}

export interface InnerProps {
  schema: Row
  name: string
  /** JSON Pointer. */
  at: string
  draft: Draft
  set: (value: Draft) => void
  needed: boolean
  depth: number
  place: Place
  /** A name besides the title, for elements of lists. */
  label?: string
}

export type FieldProps = InnerProps & { field: Field }

export const titleOf = ({ label, field }: FieldProps): string => label ?? field.title

/** Whether something is said of a field besides its title. */
export const isExplained = (field: Field): boolean => field.description !== '' || field.help !== ''

/** What is said of a field. */
export function About({ id, field }: { id: string; field: Field }) {
  if (!isExplained(field)) return null
  return (
    <div id={`${id}-about`}>
      {[field.description, field.help].filter(Boolean).map((text, index) => (
        <p key={index} class="about">
          {text}
        </p>
      ))}
    </div>
  )
}

/** Label, field, description and fault of one place. */
export function Labelled({ props, children }: { props: FieldProps; children: (id: string, described: string | undefined, fault: boolean) => ComponentChildren }) {
  const id = useId()
  const { field, at, place, needed } = props
  const fault = place.faults.get(at)
  const described = [isExplained(field) && `${id}-about`, fault !== undefined && `${id}-fault`].filter(Boolean).join(' ')
  return (
    <div class="field">
      <div class="label-row">
        <label for={id}>{titleOf(props)}</label>
        {!needed && <span class="optional">{say.form.optional}</span>}
      </div>
      {children(id, described || undefined, fault !== undefined)}
      <About id={id} field={field} />
      {fault !== undefined && (
        <p id={`${id}-fault`} class="fault">
          {fault}
        </p>
      )}
    </div>
  )
}

/** A fieldset: legend, description, fault, fields. */
export function Fieldset({ props, children }: { props: FieldProps; children: ComponentChildren }) {
  const { field, at, place, needed } = props
  const id = useId()
  const fault = place.faults.get(at)
  const described = [isExplained(field) && `${id}-about`, fault !== undefined && `${id}-fault`].filter(Boolean).join(' ')
  return (
    <fieldset class="fieldset" aria-describedby={described || undefined}>
      <legend>
        {titleOf(props)} {!needed && <span class="optional">{say.form.optional}</span>}
      </legend>
      <About id={id} field={field} />
      {children}
      {fault !== undefined && (
        <p id={`${id}-fault`} class="fault">
          {fault}
        </p>
      )}
    </fieldset>
  )
}

export function Upload(props: FieldProps) {
  const { draft, set, place, needed } = props
  const [state, setState] = useState<{ name: string; sent: number; size: number; error?: unknown } | undefined>()
  const handle = useRef<UploadHandle | undefined>(undefined)
  useEffect(() => () => handle.current?.cancel(), [])
  const choose = async (file: File | undefined) => {
    handle.current?.cancel()
    if (!file) {
      setState(undefined)
      set(undefined)
      return
    }
    const sending = place.node.upload(file, file.name)
    handle.current = sending
    set(new Unread(file.name, say.form.sending))
    setState({ name: file.name, sent: 0, size: file.size })
    const stop = sending.on(news => setState({ name: file.name, sent: news.bytes, size: file.size }))
    try {
      set(await sending.done)
      setState({ name: file.name, sent: file.size, size: file.size })
    } catch (error) {
      if (handle.current === sending) {
        setState({ name: file.name, sent: 0, size: file.size, error })
        set(new Unread(file.name, say.form.notSent))
      }
    } finally {
      stop()
    }
  }
  return (
    <Labelled props={props}>
      {(id, described, fault) => (
        <div
          class="drop"
          onDragOver={event => event.preventDefault()}
          onDrop={event => {
            event.preventDefault()
            void choose(event.dataTransfer?.files[0])
          }}
          onPaste={event => {
            const [file] = event.clipboardData?.files ?? []
            if (!file) return
            event.preventDefault()
            void choose(file)
          }}
        >
          <input
            id={id}
            type="file"
            aria-describedby={described}
            aria-invalid={fault}
            aria-required={needed}
            onChange={event => void choose(event.currentTarget.files?.[0])}
          />
          {!state && typeof draft === 'string' && <p class="small muted">{say.form.before}</p>}
          {state && state.error === undefined && (
            <p class="small muted" role="status">
              {state.sent < state.size ? say.form.sent(bytes(state.sent), bytes(state.size)) : typeof draft === 'string' ? say.form.there(bytes(state.size)) : say.form.sending}
            </p>
          )}
          {state?.error !== undefined && <p class="fault">{explain(state.error).title}</p>}
        </div>
      )}
    </Labelled>
  )
}

/** Whatever no other field is for, as JSON. */
export function JsonField(props: FieldProps) {
  const { draft, set, needed } = props
  const [text, setText] = useState(() => (draft === undefined ? '' : draft instanceof Unread ? draft.text : json(draft as Value)))
  const change = (typed: string) => {
    setText(typed)
    if (typed.trim() === '') set(undefined)
    else
      try {
        set(JSON.parse(typed) as Value)
      } catch {
        set(new Unread(typed, say.form.noJson))
      }
  }
  return (
    <Labelled props={props}>
      {(id, described, fault) => (
        <textarea
          id={id}
          class="input mono"
          rows={3}
          spellcheck={false}
          placeholder={say.form.json}
          aria-describedby={described}
          aria-invalid={fault}
          aria-required={needed}
          value={text}
          onInput={event => change(event.currentTarget.value)}
        />
      )}
    </Labelled>
  )
}
