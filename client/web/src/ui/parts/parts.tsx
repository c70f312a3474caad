/** Pieces that every page is made of. */
import type { ComponentChildren, JSX } from 'preact'
import { useEffect, useRef, useState } from 'preact/hooks'
import { announce, explain, now } from '../app.ts'
import { ago, exact, isTime } from '../format.ts'
import { say } from '../texts.ts'
import { AskIcon, CrossIcon, DoneIcon, ErrorIcon, InfoIcon, RunIcon, WaitIcon } from './icons.tsx'

export type StateWord = 'queued' | 'running' | 'locked' | 'done' | 'error'

const STATES: Record<StateWord, () => JSX.Element> = {
  queued: WaitIcon,
  running: RunIcon,
  locked: AskIcon,
  done: DoneIcon,
  error: ErrorIcon
}

/** A run's state: a word with a drawing, so that nobody needs the colour. */
export function State({ state }: { state: StateWord }) {
  const Drawing = STATES[state]
  return (
    <span class={`state ${state}`}>
      <Drawing />
      <span>{state}</span>
    </span>
  )
}

/** Return the word for a state as a node says it. */
export function wordOf(state: string, queued: boolean): StateWord {
  if (state === 'done' || state === 'error' || state === 'locked') return state
  return queued ? 'queued' : 'running'
}

/** A time: relative, exact on hover. */
export function Time({ at }: { at: number | undefined }) {
  if (!isTime(at)) return <span>?</span>
  return (
    <time dateTime={new Date(at).toISOString()} title={exact(at)} class="nowrap">
      {ago(at, now.value)}
    </time>
  )
}

/** What there is instead of a list without rows: what to do next. */
export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <h2>{title}</h2>
      {children}
    </div>
  )
}

/** Stands where rows will be. */
export function Skeletons({ rows = 3, label }: { rows?: number; label: string }) {
  return (
    <div class="stack" role="status">
      <span class="unseen">{label}</span>
      {Array.from({ length: rows }, (_, index) => (
        <div key={index} class="card" aria-hidden="true">
          <div class="skeleton wide" />
          <div class="skeleton narrow" />
        </div>
      ))}
    </div>
  )
}

/** Something that the person should know. `bad` ones are told to screen readers at once. */
export function Note({ kind = 'info', title, children }: { kind?: 'info' | 'bad' | 'warn' | 'good'; title?: string; children?: ComponentChildren }) {
  return (
    <div class={`note ${kind}`} role={kind === 'bad' ? 'alert' : 'status'}>
      {kind === 'bad' || kind === 'warn' ? <ErrorIcon /> : kind === 'good' ? <DoneIcon /> : <InfoIcon />}
      <div>
        {title && <strong>{title}</strong>}
        {children}
      </div>
    </div>
  )
}

/** An error in words. */
export function Failure({ error, children }: { error: unknown; children?: ComponentChildren }) {
  const { title, text } = explain(error)
  return (
    <Note kind="bad" title={title}>
      {text && <p>{text}</p>}
      {children}
    </Note>
  )
}

/** A button that copies a text. */
export function CopyButton({ text, label = say.copy, small = false }: { text: string; label?: string; small?: boolean }) {
  const [copied, setCopied] = useState(false)
  useEffect(() => {
    if (!copied) return undefined
    const timer = setTimeout(() => setCopied(false), 2000)
    return () => clearTimeout(timer)
  }, [copied])
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text)
      setCopied(true)
      announce(say.copied)
    } catch {
      announce(say.notCopied)
    }
  }
  return (
    <button type="button" class={`button ${small ? 'small' : ''}`} onClick={() => void copy()}>
      {copied ? say.copied : label}
    </button>
  )
}

/** A text to copy, shown. */
export function CopyLine({ text, label, wraps = false }: { text: string; label?: string; wraps?: boolean }) {
  return (
    <div class={`copy ${wraps ? 'wraps' : ''}`}>
      <code tabIndex={0} aria-label={label}>
        {text}
      </code>
      <CopyButton text={text} label={say.copy} />
    </div>
  )
}

/** A modal question. It closes on Escape, and gives the focus back. */
export function Dialog({ title, close, children }: { title: string; close: () => void; children: ComponentChildren }) {
  const element = useRef<HTMLDialogElement>(null)
  useEffect(() => {
    const shown = element.current
    const before = document.activeElement
    shown?.showModal()
    return () => {
      shown?.close()
      if (before instanceof HTMLElement) before.focus()
    }
  }, [])
  return (
    <dialog
      ref={element}
      aria-labelledby="dialog-title"
      onCancel={event => {
        event.preventDefault()
        close()
      }}
    >
      <div class="stack">
        <div class="row between title">
          <h2 id="dialog-title">{title}</h2>
          <button type="button" class="button plain small" aria-label={say.close} onClick={close}>
            <CrossIcon />
          </button>
        </div>
        {children}
      </div>
    </dialog>
  )
}

/** Asks before something that cannot be undone; the button names what it does. */
export function Confirm(props: { title: string; text: string; action: string; act: () => Promise<void>; close: () => void }) {
  const [error, setError] = useState<unknown>()
  const [busy, setBusy] = useState(false)
  const act = async () => {
    setBusy(true)
    try {
      await props.act()
      props.close()
    } catch (failed) {
      setError(failed)
      setBusy(false)
    }
  }
  return (
    <Dialog title={props.title} close={props.close}>
      <p>{props.text}</p>
      {error !== undefined && <Failure error={error} />}
      <div class="row">
        <button type="button" class="button danger" disabled={busy} onClick={() => void act()}>
          {props.action}
        </button>
        <button type="button" class="button" onClick={props.close}>
          {say.cancel}
        </button>
      </div>
    </Dialog>
  )
}

/** The begin of a page: its title has the focus after navigation, so that it is read first. */
export function PageHead({ title, children, aside }: { title: string; children?: ComponentChildren; aside?: ComponentChildren }) {
  const heading = useRef<HTMLHeadingElement>(null)
  useEffect(() => {
    if (document.body.dataset['moved']) heading.current?.focus({ preventScroll: true })
  }, [])
  return (
    <header class="page-head">
      <div class="grow wide">
        <h1 ref={heading} tabIndex={-1}>
          {title}
        </h1>
        {children}
      </div>
      {aside}
    </header>
  )
}

/** Do something asynchronous while a component is shown, again when `inputs` change; it is stopped by the signal. */
export function useTask(task: (stop: AbortSignal) => Promise<void>, inputs: readonly unknown[]): void {
  useEffect(() => {
    const stop = new AbortController()
    task(stop.signal).catch((error: unknown) => {
      if (!stop.signal.aborted) console.error(error instanceof Error ? error.message : error)
    })
    return () => stop.abort()
     
  }, inputs)
}
