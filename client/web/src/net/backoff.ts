/** Waits before the next attempt: doubling from 0.1 s to 5 s, with jitter. A network that comes back ends a wait. */
import { abortError } from './calls.ts'

const FIRST_MS = 100
const MOST_MS = 5000

export class Backoff {
  #attempt = 0

  /** Begin anew: something arrived. */
  succeeded(): void {
    this.#attempt = 0
  }

  /** Wait; ends early when the browser is online again, or the page is looked at again. @throws the signal's reason. */
  async wait(signal: AbortSignal): Promise<void> {
    const delay = Math.min(FIRST_MS * 2 ** this.#attempt++, MOST_MS) * (0.7 + 0.3 * Math.random())
    await sleep(delay, signal)
  }
}

export function sleep(delay: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) {
      reject(abortError(signal))
      return
    }
    const settle = () => {
      clearTimeout(timer)
      removeEventListener('online', settle)
      document.removeEventListener('visibilitychange', settle)
      signal.removeEventListener('abort', settle)
      if (signal.aborted) reject(abortError(signal))
      else resolve()
    }
    const timer = setTimeout(settle, delay)
    addEventListener('online', settle)
    document.addEventListener('visibilitychange', settle)
    signal.addEventListener('abort', settle)
  })
}
