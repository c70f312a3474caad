/** What this browser remembers, in IndexedDB: its key, pins, logins and on which node runs are. */
import { KodoError } from '../core/errors.ts'

const VERSION = 1
export type StoreName = 'keys' | 'pins' | 'logins' | 'runs' | 'parts'
const STORES: readonly StoreName[] = ['keys', 'pins', 'logins', 'runs', 'parts']

/** What IndexedDB gives later, as a promise. */
const settled = <Result>(request: IDBRequest<Result>): Promise<Result> =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result)
    request.onerror = () => reject(new KodoError(`This browser could not keep data: ${request.error?.message ?? 'unknown'}`))
  })

/** A few stores of values by key. Opened at first use; where the browser keeps nothing, it is kept for this page only. */
export class Database {
  readonly name: string
  #opened: Promise<IDBDatabase> | undefined
  /** Where IndexedDB is refused (a private window of some browsers): values of this page's life. */
  readonly #memory = new Map<string, unknown>()
  #volatile = false

  constructor(name: string) {
    this.name = name
  }

  /** Whether values are forgotten when the page is closed. */
  get volatile(): boolean {
    return this.#volatile
  }

  async #open(): Promise<IDBDatabase | undefined> {
    if (this.#volatile) return undefined
    try {
      this.#opened ??= new Promise((resolve, reject) => {
        const request = indexedDB.open(this.name, VERSION)
        request.onupgradeneeded = () => {
          for (const store of STORES) if (!request.result.objectStoreNames.contains(store)) request.result.createObjectStore(store)
        }
        request.onsuccess = () => resolve(request.result)
        request.onerror = () => reject(request.error ?? new Error('refused'))
      })
      const database = await this.#opened
      // Another tab with a later version of the page may go on; this one opens anew.
      database.onversionchange = () => {
        database.close()
        this.#opened = undefined
      }
      return database
    } catch {
      this.#volatile = true
      return undefined
    }
  }

  async get(store: StoreName, key: string): Promise<unknown> {
    const database = await this.#open()
    if (!database) return this.#memory.get(`${store}/${key}`)
    return settled(database.transaction(store).objectStore(store).get(key) as IDBRequest<unknown>)
  }

  async put(store: StoreName, key: string, value: unknown): Promise<void> {
    const database = await this.#open()
    if (!database) this.#memory.set(`${store}/${key}`, value)
    else await settled(database.transaction(store, 'readwrite').objectStore(store).put(value, key))
  }

  /** Keep a value where none is kept yet; return the one that is kept, in one step for all tabs. */
  async putNew(store: StoreName, key: string, value: unknown): Promise<unknown> {
    const database = await this.#open()
    if (!database) {
      const known = this.#memory.get(`${store}/${key}`)
      if (known === undefined) this.#memory.set(`${store}/${key}`, value)
      return known ?? value
    }
    const objects = database.transaction(store, 'readwrite').objectStore(store)
    const known = await settled(objects.get(key) as IDBRequest<unknown>)
    if (known !== undefined) return known
    await settled(objects.put(value, key))
    return value
  }

  async remove(store: StoreName, key: string): Promise<void> {
    const database = await this.#open()
    if (!database) this.#memory.delete(`${store}/${key}`)
    else await settled(database.transaction(store, 'readwrite').objectStore(store).delete(key))
  }

  /** Return all keys of a store, with their values. */
  async entries(store: StoreName): Promise<[string, unknown][]> {
    const database = await this.#open()
    if (!database)
      return [...this.#memory].filter(([key]) => key.startsWith(`${store}/`)).map(([key, value]) => [key.slice(store.length + 1), value])
    const objects = database.transaction(store).objectStore(store)
    const [keys, values] = await Promise.all([settled(objects.getAllKeys()), settled(objects.getAll() as IDBRequest<unknown[]>)])
    return keys.map((key, i) => [key as string, values[i]])
  }

  close(): void {
    void this.#opened?.then(database => database.close())
    this.#opened = undefined
  }
}
