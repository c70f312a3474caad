/** A form made of a JSON Schema: for the inputs of a flow, and for the answer to a question. */
import { useSignal } from '@preact/signals'
import type { ComponentChildren } from 'preact'
import { useId, useMemo, useRef, useState } from 'preact/hooks'
import { fieldOf, isRow, type Row, type Value } from '../../core/value.ts'
import type { NodeClient } from '../../net/api.ts'
import { announce, escapePointer, explain, placesOf } from '../app.ts'
import { brief, json } from '../format.ts'
import { CrossIcon, PlusIcon } from '../parts/icons.tsx'
import { Note } from '../parts/parts.tsx'
import { say } from '../texts.ts'
import { About, type FieldProps, Fieldset, type InnerProps, isExplained, JsonField, Labelled, titleOf, Upload } from './field.tsx'
import { Files } from './files.tsx'
import { beginOf, type Draft, faultsOf, type Field, fieldFor, MAX_DEPTH, put, readNumber, Unread, valueOf } from './schema.ts'

interface FormProps {
  schema: Row
  /** Stands where the schema has no title. */
  name: string
  /** What it begins with instead of the schema's defaults. */
  initial?: Value | undefined
  /** Files are sent to it. */
  node: NodeClient
  /** The word on the button. */
  action: string
  disabled?: boolean
  send: Send
  /** What else can be done with what was filled in; `partial`: fields that are needed may be empty. */
  others?: readonly { action: string; partial?: boolean; send: Send }[]
  aside?: ComponentChildren
}

type Send = (value: Value) => Promise<void> | void

/** The form with its button. What the node refuses is shown beside the fields, and nothing typed is lost. */
export function Form({ schema, name, initial, node, action, disabled = false, send, others = [], aside }: FormProps) {
  const draft = useSignal<Draft>(undefined)
  const begun = useMemo(() => ((draft.value = (initial ?? beginOf(schema, schema, true)) as Draft), true), [schema, initial])
  const [faults, setFaults] = useState<ReadonlyMap<string, string>>(new Map())
  const [error, setError] = useState<unknown>()
  const [busy, setBusy] = useState(false)
  const form = useRef<HTMLFormElement>(null)

  const show = (found: ReadonlyMap<string, string>) => {
    setFaults(found)
    announce(say.form.faults(found.size))
    requestAnimationFrame(() => form.current?.querySelector<HTMLElement>('[aria-invalid="true"]')?.focus())
  }
  const met = useMemo(() => new Set<string>(), [schema])
  const submit = async (given: Send, partial = false) => {
    setError(undefined)
    const found = faultsOf(schema, schema, draft.value, partial ? undefined : say.needed)
    if (found.size > 0) {
      show(found)
      return
    }
    setFaults(new Map())
    setBusy(true)
    try {
      await given(valueOf(draft.value) ?? null)
    } catch (refused) {
      setError(refused)
      const places = placesOf(refused)
      if (places.size > 0) show(places)
    } finally {
      setBusy(false)
    }
  }

  // What is wrong with no field that is shown stands below the form.
  const elsewhere = [...faults].filter(([at]) => !met.has(at) || (at === '' && fieldFor(schema, schema, name).kind === 'group'))
  const told = error === undefined ? undefined : explain(error)
  return (
    <form
      ref={form}
      class="form"
      noValidate
      onSubmit={event => {
        event.preventDefault()
        if (!busy && !disabled) void submit(send)
      }}
    >
      {begun && (
        <Inner
          schema={schema}
          name={name}
          at=""
          draft={draft.value}
          set={value => (draft.value = value)}
          needed
          depth={0}
          place={{ root: schema, node, faults, met }}
        />
      )}
      {told && (
        <Note kind="bad" title={told.title}>
          {told.text && faults.size === 0 && <p>{told.text}</p>}
          {error instanceof Error && 'data' in error && <Reasons data={error.data} />}
        </Note>
      )}
      {elsewhere.map(([at, message]) => (
        <p key={at} class="fault">
          {at && `${at.slice(1)}: `}
          {message}
        </p>
      ))}
      <div class="row">
        <button type="submit" class="button main" disabled={busy || disabled}>
          {busy ? say.form.busy(action) : action}
        </button>
        {others.map(other => (
          <button key={other.action} type="button" class="button" disabled={busy || disabled} onClick={() => void submit(other.send, other.partial)}>
            {other.action}
          </button>
        ))}
        {aside}
      </div>
    </form>
  )
}

/** Why a flow did not take an answer. */
function Reasons({ data }: { data: unknown }) {
  const reasons = isRow(data) ? fieldOf(data, 'reasons') : undefined
  if (!Array.isArray(reasons) || reasons.length === 0) return null
  return (
    <ul class="plain-list">
      {reasons.slice(0, 20).map((reason, index) => (
        <li key={index}>{brief(reason, 500)}</li>
      ))}
    </ul>
  )
}

function Inner(props: InnerProps) {
  const { schema, place, name, depth } = props
  place.met.add(props.at)
  const field = useMemo(() => fieldFor(schema, place.root, name), [schema, place.root, name])
  if (depth > MAX_DEPTH) return <JsonField {...props} field={field} />
  const given = { ...props, field }
  switch (field.kind) {
    case 'group':
      return <Group {...given} />
    case 'boolean':
      return <Switch {...given} />
    case 'choice':
      return <Choice {...given} />
    case 'choices':
      return <Choices {...given} />
    case 'list':
      return <List {...given} />
    case 'map':
      return <Entries {...given} />
    case 'oneOf':
      return <Ways {...given} />
    case 'file':
      return <Upload {...given} />
    case 'files':
      return <Files {...given} />
    case 'constant':
      return null
    case 'text':
    case 'integer':
    case 'number':
      return <Line {...given} />
    default:
      return <JsonField {...given} />
  }
}

function Line(props: FieldProps) {
  const { field, draft, set, needed } = props
  const isNumber = field.kind !== 'text'
  const shown = draft instanceof Unread ? draft.text : draft === undefined || draft === null ? '' : brief(draft as Value, 1e6)
  const change = (text: string) => {
    if (text === '' && (isNumber || !needed || field.nullable)) set(field.nullable && field.initial === null ? null : undefined)
    else if (!isNumber) set(text)
    else {
      const number = readNumber(text, field.kind === 'integer')
      set(number ?? new Unread(text, field.kind === 'integer' ? say.form.noInteger : say.form.noNumber))
    }
  }
  const longest = fieldOf(field.schema, 'maxLength')
  const initial = typeof field.initial === 'string' ? field.initial : ''
  const isLong = !isNumber && !field.secret && ((typeof longest === 'number' && longest > 200) || initial.includes('\n') || field.long || shown.includes('\n'))
  return (
    <Labelled props={props}>
      {(id, described, fault) => {
        const common = {
          id,
          class: 'input',
          'aria-describedby': described,
          'aria-invalid': fault,
          'aria-required': needed,
          ...(field.placeholder && !field.secret && { placeholder: field.placeholder }),
          autocomplete: 'off' as const,
          spellcheck: !isNumber && !field.secret
        }
        if (isLong) return <textarea {...common} rows={4} value={shown} onInput={event => change(event.currentTarget.value)} />
        const typed = { ...common, value: shown, onInput: (event: { currentTarget: HTMLInputElement }) => change(event.currentTarget.value) }
        if (field.secret) return <input {...typed} type="password" />
        if (isNumber) return <input {...typed} type="text" inputMode={field.kind === 'integer' ? 'numeric' : 'decimal'} />
        if (field.format === 'date') return <input {...typed} type="date" />
        return <input {...typed} type="text" inputMode={field.format === 'email' ? 'email' : field.format === 'uri' ? 'url' : 'text'} />
      }}
    </Labelled>
  )
}

function Switch(props: FieldProps) {
  const { field, draft, set, needed, at, place } = props
  const id = useId()
  const fault = place.faults.get(at)
  return (
    <div class="field">
      <div class="check">
        <input
          id={id}
          type="checkbox"
          checked={draft === true}
          aria-describedby={isExplained(field) ? `${id}-about` : undefined}
          aria-invalid={fault !== undefined}
          onChange={event => set(event.currentTarget.checked)}
        />
        <label for={id}>{titleOf(props)}</label>
        {!needed && field.nullable && draft !== undefined && draft !== null && (
          <button type="button" class="button plain small" onClick={() => set(field.initial === null ? null : undefined)}>
            {say.form.clear}
          </button>
        )}
      </div>
      <About id={id} field={field} />
      {fault !== undefined && <p class="fault">{fault}</p>}
    </div>
  )
}

function Choice(props: FieldProps) {
  const { field, draft, set, needed } = props
  const chosen = field.values.findIndex(each => json(each, 0) === json(draft as Value, 0))
  return (
    <Labelled props={props}>
      {(id, described, fault) => (
        <select
          id={id}
          class="input"
          aria-describedby={described}
          aria-invalid={fault}
          aria-required={needed}
          value={chosen < 0 ? '' : String(chosen)}
          onChange={event => {
            const index = event.currentTarget.value
            set(index === '' ? (field.nullable ? null : undefined) : field.values[Number(index)])
          }}
        >
          {(chosen < 0 || !needed || field.nullable) && <option value="">{say.form.none}</option>}
          {field.values.map((each, index) => (
            <option key={index} value={String(index)}>
              {field.labels[index] ?? brief(each, 120)}
            </option>
          ))}
        </select>
      )}
    </Labelled>
  )
}

function Choices(props: FieldProps) {
  const { field, draft, set } = props
  const chosen = new Set(Array.isArray(draft) ? draft.map(each => json(each as Value, 0)) : [])
  const toggle = (value: Value, on: boolean) => {
    const key = json(value, 0)
    set(field.values.filter(each => (json(each, 0) === key ? on : chosen.has(json(each, 0)))))
  }
  const id = useId()
  return (
    <Fieldset props={props}>
      <div class="choices">
        {field.values.map((each, index) => (
          <div key={index} class="check">
            <input
              id={`${id}-${index}`}
              type="checkbox"
              checked={chosen.has(json(each, 0))}
              onChange={event => toggle(each, event.currentTarget.checked)}
            />
            <label for={`${id}-${index}`}>{field.labels[index] ?? brief(each, 120)}</label>
          </div>
        ))}
      </div>
    </Fieldset>
  )
}

/** Fields that stand together, as `fieldFor` has them beside each other, under their heading. */
function grouped(members: Field['members']): { group: string; members: Field['members'] }[] {
  const found: { group: string; members: Field['members'] }[] = []
  for (const member of members) {
    const last = found.at(-1)
    if (last?.group === member.group) last.members.push(member)
    else found.push({ group: member.group, members: [member] })
  }
  return found
}

function Group(props: FieldProps) {
  const { field, draft, set, at, place, depth, needed } = props
  const row = draft !== undefined && draft !== null && isRow(draft) ? (draft as { [key: string]: Draft }) : undefined
  const change = (name: string, value: Draft) => {
    const next: { [key: string]: Draft } = { ...(row ?? {}) }
    put(next as Row, name, value as Value | undefined)
    set(next)
  }
  if (!row && depth > 0)
    return (
      <Fieldset props={props}>
        <button type="button" class="button small" onClick={() => set(beginOf(field.schema, place.root, true) ?? {})}>
          <PlusIcon />
          {say.form.add(titleOf(props))}
        </button>
      </Fieldset>
    )
  const inner = (member: Field['members'][number]) => (
    <Inner
      key={member.name}
      schema={member.schema}
      name={member.name}
      at={`${at}/${escapePointer(member.name)}`}
      draft={row ? (fieldOf(row as Row, member.name)) : undefined}
      set={value => change(member.name, value)}
      needed={member.needed}
      depth={depth + 1}
      place={place}
    />
  )
  const members = grouped(field.members).map(each =>
    each.group === '' ? (
      each.members.map(inner)
    ) : (
      <fieldset key={`group ${each.group}`} class="fieldset">
        <legend>{brief(each.group, 120)}</legend>
        {each.members.map(inner)}
      </fieldset>
    )
  )
  if (depth === 0) return <div class="stack">{members}</div>
  return (
    <Fieldset props={props}>
      {members}
      {!needed && (
        <button type="button" class="button plain small" onClick={() => set(field.nullable && field.initial === null ? null : undefined)}>
          {say.form.remove(titleOf(props))}
        </button>
      )}
    </Fieldset>
  )
}

function List(props: FieldProps) {
  const { field, draft, set, at, place, depth } = props
  const list = Array.isArray(draft) ? (draft as Draft[]) : []
  const replace = (index: number, value: Draft) => set(list.map((each, one) => (one === index ? value : each)))
  const title = titleOf(props)
  return (
    <Fieldset props={props}>
      {list.map((each, index) => (
        <div key={index} class="element">
          <div class="grow">
            <Inner
              schema={field.prefix[index] ?? field.element}
              name={title}
              label={`${title} ${index + 1}`}
              at={`${at}/${index}`}
              draft={each}
              set={value => replace(index, value)}
              needed
              depth={depth + 1}
              place={place}
            />
          </div>
          <button type="button" class="button plain small" aria-label={say.form.remove(`${title} ${index + 1}`)} onClick={() => set(list.filter((_, one) => one !== index))}>
            <CrossIcon />
          </button>
        </div>
      ))}
      <button
        type="button"
        class="button small"
        onClick={() => set([...list, beginOf(field.prefix[list.length] ?? field.element, place.root, true)])}
      >
        <PlusIcon />
        {say.form.add(title)}
      </button>
    </Fieldset>
  )
}

function Entries(props: FieldProps) {
  const { field, draft, set, at, place, depth } = props
  const [name, setName] = useState('')
  const id = useId()
  const row = draft !== undefined && draft !== null && isRow(draft) ? (draft) : {}
  const title = titleOf(props)
  const change = (key: string, value: Draft) => {
    const next: Row = { ...row }
    put(next, key, value as Value | undefined)
    set(next)
  }
  const add = () => {
    if (name === '' || Object.hasOwn(row, name)) return
    change(name, beginOf(field.element, place.root, true) ?? '')
    setName('')
  }
  return (
    <Fieldset props={props}>
      {Object.entries(row).map(([key, each]) => (
        <div key={key} class="element">
          <div class="grow">
            <Inner schema={field.element} name={key} label={key} at={`${at}/${escapePointer(key)}`} draft={each} set={value => change(key, value ?? '')} needed depth={depth + 1} place={place} />
          </div>
          <button type="button" class="button plain small" aria-label={say.form.remove(key)} onClick={() => change(key, undefined)}>
            <CrossIcon />
          </button>
        </div>
      ))}
      <div class="row">
        <label class="unseen" for={id}>
          {say.form.newName(title)}
        </label>
        <input id={id} class="input short" placeholder={say.form.name} value={name} onInput={event => setName(event.currentTarget.value)} />
        <button type="button" class="button small" onClick={add}>
          <PlusIcon />
          {say.form.add(title)}
        </button>
      </div>
    </Fieldset>
  )
}

function Ways(props: FieldProps) {
  const { field, draft, set, place, needed } = props
  const id = useId()
  const [way, setWay] = useState(() => wayOf(field, draft, place.root))
  const chosen = field.ways[way]
  return (
    <Fieldset props={{ ...props }}>
      <div class="label-row">
        <label for={id}>{say.form.way(titleOf(props))}</label>
      </div>
      <select
        id={id}
        class="input"
        value={String(way)}
        onChange={event => {
          const index = Number(event.currentTarget.value)
          setWay(index)
          const next = field.ways[index]
          set(next ? beginOf(next.schema, place.root, true) : field.nullable ? null : undefined)
        }}
      >
        {(!needed || field.nullable || way < 0) && <option value="-1">{say.form.none}</option>}
        {field.ways.map((each, index) => (
          <option key={index} value={String(index)}>
            {each.title}
          </option>
        ))}
      </select>
      {chosen && <Inner {...props} key={way} schema={chosen.schema} name={chosen.title} label={chosen.title} needed depth={props.depth + 1} />}
    </Fieldset>
  )
}

/** Return the way that a value goes: by its type, else none. */
function wayOf(field: Field, draft: Draft, root: Row): number {
  if (draft === undefined || draft === null) return -1
  const type = Array.isArray(draft) ? 'list' : typeof draft
  return field.ways.findIndex(({ schema }) => {
    const kind = fieldFor(schema, root, '').kind
    if (type === 'string') return kind === 'text' || kind === 'choice'
    if (type === 'number' || type === 'bigint') return kind === 'number' || kind === 'integer'
    if (type === 'boolean') return kind === 'boolean'
    if (type === 'list') return kind === 'list' || kind === 'files' || kind === 'choices'
    return kind === 'group' || kind === 'map'
  })
}

