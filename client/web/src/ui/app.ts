/** What all pages share: the engine, what is told to whoever cannot see the page, and the time. */
import { signal } from '@preact/signals'
import { CallError, DeadlineError, IdentityError, NetworkError, UsageError } from '../core/errors.ts'
import { fieldOf, isRow, textOf } from '../core/value.ts'
import type { Engine, LockState, NodeClient } from '../net/api.ts'
import { book, remember } from './book.ts'
import { host } from './host.ts'
import { say } from './texts.ts'

let opened: Engine | undefined

/** Give the pages their engine. */
export function setEngine(engine: Engine): void {
  opened = engine
}

/** Return the engine. */
export function engine(): Engine {
  if (!opened) throw new UsageError('The page has not begun yet.')
  return opened
}

/** Whether the key of this browser wants its password first. */
export const lockState = signal<LockState>('open')

/** Keep `lockState` true, whichever tab changes it. */
export async function watchLock(): Promise<void> {
  const { identity } = engine()
  const look = async () => {
    lockState.value = await identity.lockState()
  }
  identity.onChange(() => void look())
  await look()
}

/** Why a login at an issuer failed, once the browser came back from there. */
export const loginFailure = signal<unknown>(undefined)

/** The current time, ms UTC, as often as shown times need it. */
export const now = signal(Date.now())

/** Let the time pass. */
export function startClock(): void {
  setInterval(() => {
    if (!document.hidden) now.value = Date.now()
  }, 1000)
}

/** What a screen reader is told; the same text again is told again. */
export const announced = signal({ text: '', turn: 0 })

export function announce(text: string): void {
  announced.value = { text, turn: announced.peek().turn + 1 }
}

/** Return the client of a node that the page knows by its peer id. */
export function nodeOf(peerId: string, name?: string): NodeClient {
  const known = book.peek().get(peerId)
  return engine().node({ peerId, addrs: known?.addrs ?? [], ...(known?.name && { label: known.name }), ...(name !== undefined && { name }) })
}

/** Look for a node where the page does not know any address: nearby and in registries. */
export async function findNode(peerId: string, stop: AbortSignal): Promise<void> {
  if ((book.peek().get(peerId)?.addrs.length ?? 0) > 0) return
  const addrs = await host.peek().addresses(peerId, stop)
  if (addrs.length > 0) remember(peerId, '', addrs)
}

/** Read from a node that may be slow to answer: three times before it counts as away. */
export async function patiently<Result>(read: () => Promise<Result>, stop: AbortSignal): Promise<Result> {
  for (let left = 2; ; left -= 1)
    try {
      return await read()
    } catch (error) {
      const isAway = error instanceof NetworkError || error instanceof DeadlineError
      if (stop.aborted || left === 0 || !isAway) throw error
    }
}

/** Refuse a node whose name was another peer id before. */
async function checkPin(name: string, peerId: string): Promise<void> {
  const pinned = name ? await engine().pins.get(name) : undefined
  if (pinned !== undefined && pinned !== peerId)
    throw new IdentityError(`The name ${name} belonged to the node ${pinned} before, and now ${peerId} claims it.`, pinned, peerId)
}

/** Return a node that is to get inputs: held to the name that the person saw it by. */
export async function chosenNode(peerId: string): Promise<NodeClient> {
  const called = book.peek().get(peerId)?.name ?? ''
  await checkPin(called, peerId)
  return nodeOf(peerId, called || undefined)
}

/** An error in words for people: what happened, and what may help. */
export function explain(error: unknown): { title: string; text: string } {
  if (error instanceof CallError) {
    const known = say.refusals[error.reason]
    return { title: known ?? say.refused, text: error.message && error.message !== error.reason ? error.message : '' }
  }
  if (error instanceof IdentityError) return { title: say.wrongIdentity, text: error.message }
  if (error instanceof NetworkError || error instanceof DeadlineError) return { title: say.away, text: error.message }
  if (error instanceof Error) return { title: say.failed, text: error.message }
  return { title: say.failed, text: '' }
}

/** The places of a form that a refusal names: what is wrong, by JSON Pointer. */
export function placesOf(error: unknown): Map<string, string> {
  const found = new Map<string, string>()
  if (!(error instanceof CallError)) return found
  const places = fieldOf(error.data, 'places')
  for (const place of Array.isArray(places) ? places : [])
    if (isRow(place)) {
      const [at, message] = [textOf(place, 'at'), textOf(place, 'message')]
      const before = found.get(at)
      found.set(at, before === undefined ? message : `${before}; ${message}`)
    }
  const missing = fieldOf(error.data, 'missing')
  for (const name of Array.isArray(missing) ? missing : []) if (typeof name === 'string') found.set(`/${escapePointer(name)}`, say.needed)
  return found
}

/** Return one part of a JSON Pointer (RFC 6901). */
export const escapePointer = (part: string): string => part.replaceAll('~', '~0').replaceAll('/', '~1')
