/** What waits for the person, on all nodes that were of use; asked for now and then. */
import { signal } from '@preact/signals'
import { numberOf, textOf } from '../../core/value.ts'
import { lockState, nodeOf } from '../app.ts'
import { nameOf } from '../book.ts'
import { usedNodes } from '../runs/runs.ts'
import { keep, kept } from '../storage.ts'
import { oneLine } from '../format.ts'
import { say } from '../texts.ts'

export interface Waiting {
  peerId: string
  node: string
  fid: string
  lid: string
  title: string
  /** Of the flow. */
  path: string
  name: string
  expiresAt: number | undefined
}

const EVERY_MS = 20_000
const MOST = 500
const SEEN = 'kodo.seen'
const NOTIFY = 'kodo.notify'

export const waiting = signal<readonly Waiting[]>([])
/** Whether every node was asked at least once. */
export const looked = signal(false)
/** Runs that ended before this were seen, ms UTC. */
export const seenAt = signal(Number(kept(SEEN) ?? 0) || 0)
export const notifies = signal(kept(NOTIFY) === 'yes')

/** Take all that ended as seen. */
export function markSeen(at: number): void {
  seenAt.value = at
  keep(SEEN, String(at))
}

/** Ask for leave to notify, or stop notifying. */
export async function setNotifies(on: boolean): Promise<void> {
  const granted = on && (await Notification.requestPermission()) === 'granted'
  notifies.value = granted
  keep(NOTIFY, granted ? 'yes' : undefined)
}

/** Ask all nodes once. */
export async function look(stop: AbortSignal): Promise<void> {
  const found: Waiting[] = []
  const kept: Waiting[] = []
  await Promise.all(
    usedNodes().map(async peerId => {
      try {
        for await (const row of nodeOf(peerId).pages('lock.list', { pp: 100 }, { signal: stop, timeout: 10_000 })) {
          found.push({
            peerId,
            node: nameOf(peerId),
            fid: textOf(row, 'fid'),
            lid: textOf(row, 'lid'),
            title: textOf(row, 'title'),
            path: textOf(row, 'flow'),
            // A node that is older tells the path alone.
            name: textOf(row, 'name') || textOf(row, 'flow'),
            expiresAt: numberOf(row, 'expires_at')
          })
          if (found.length >= MOST) break
        }
      } catch {
        // A node that is away keeps its questions.
        kept.push(...waiting.peek().filter(each => each.peerId === peerId))
      }
    })
  )
  if (stop.aborted) return
  const known = new Set(waiting.peek().map(each => each.lid))
  const fresh = found.filter(each => !known.has(each.lid))
  const first = !looked.peek()
  waiting.value = [...found, ...kept].sort((a, b) => (a.expiresAt ?? 0) - (b.expiresAt ?? 0))
  looked.value = true
  if (!first && fresh.length > 0 && notifies.peek() && document.hidden)
    new Notification(say.title, { body: fresh.map(each => oneLine(each.title, 120)).join('\n'), tag: 'kodo-questions' })
}

/** Look again and again while the page is shown, or is to notify. */
export function watchInbox(): void {
  const stop = new AbortController()
  let busy = false
  const turn = async () => {
    if (busy || lockState.peek() === 'locked' || (document.hidden && !notifies.peek())) return
    busy = true
    await look(stop.signal).catch(() => undefined)
    busy = false
  }
  setTimeout(() => void turn(), 1500)
  setInterval(() => void turn(), EVERY_MS)
  document.addEventListener('visibilitychange', () => void turn())
}
