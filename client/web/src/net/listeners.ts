/** Those who want to hear of something. */
import type { Listenable, Unsubscribe } from './api.ts'

export class Listeners<News> implements Listenable<News> {
  readonly #all = new Set<(news: News) => void>()

  on(listener: (news: News) => void): Unsubscribe {
    this.#all.add(listener)
    return () => {
      this.#all.delete(listener)
    }
  }

  /** Tell all; one that fails does not keep the others from hearing it. */
  tell(news: News): void {
    for (const listener of [...this.#all]) {
      try {
        listener(news)
      } catch (error) {
        reportError(error)
      }
    }
  }
}
