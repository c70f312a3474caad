/** Pins and known runs: what this browser holds nodes to. */
import { IdentityError } from '../core/errors.ts'
import { isId } from '../core/link.ts'
import type { KnownRuns, NodeTarget, Pin, Pins } from './api.ts'
import type { Database } from './database.ts'

export class PinStore implements Pins {
  readonly #database: Database

  constructor(database: Database) {
    this.#database = database
  }

  async get(name: string): Promise<string | undefined> {
    return ((await this.#database.get('pins', name)) as Pin | undefined)?.peerId
  }

  async list(): Promise<Pin[]> {
    return (await this.#database.entries('pins')).map(([, value]) => value as Pin).sort((a, b) => a.name.localeCompare(b.name))
  }

  remove(name: string): Promise<void> {
    return this.#database.remove('pins', name)
  }

  /** Check that a name may be used for a peer. @throws IdentityError: it is pinned to another one; both are told. */
  async check(name: string, peerId: string): Promise<void> {
    const known = await this.get(name)
    if (known !== undefined && known !== peerId)
      throw new IdentityError(`${name} was ${known} before, and ${peerId} claims that name now. If the node really has a new key, remove the pin.`, known, peerId)
  }

  /** Pin a name to a peer that has proved its id. @throws IdentityError as `check`. */
  async pin(name: string, peerId: string): Promise<void> {
    const pin: Pin = { name, peerId, since: Date.now() }
    const kept = (await this.#database.putNew('pins', name, pin)) as Pin
    if (kept.peerId !== peerId) await this.check(name, peerId)
  }
}

/** Most runs that are remembered; the oldest go first, and their ids tell their age. */
const MAX_RUNS = 5000

export class RunStore implements KnownRuns {
  readonly #database: Database

  constructor(database: Database) {
    this.#database = database
  }

  async get(fid: string): Promise<NodeTarget | undefined> {
    return (await this.#database.get('runs', fid)) as NodeTarget | undefined
  }

  async remember(fid: string, target: NodeTarget): Promise<void> {
    if (!isId(fid)) return
    const { peerId, addrs, name } = target
    await this.#database.put('runs', fid, { peerId, addrs: [...addrs], ...(name === undefined ? {} : { name }) })
    const fids = (await this.#database.entries('runs')).map(([key]) => key).sort()
    for (const oldest of fids.slice(0, Math.max(0, fids.length - MAX_RUNS))) await this.forget(oldest)
  }

  forget(fid: string): Promise<void> {
    return this.#database.remove('runs', fid)
  }
}
