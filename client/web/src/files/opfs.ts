/**
 * The browser's own disk (OPFS): parts of 16 MiB, each a file, so that a reload loses no more than one of them.
 *
 *     kodo-downloads/KEY/about.json       what it is
 *     kodo-downloads/KEY/000000 …         parts, whole once they are closed
 *
 * A finished file is handed over as one Blob of its parts, which the browser reads from there; its folder is removed a day
 * later, when nobody reads it any more.
 */
import { UsageError } from '../core/errors.ts'
import type { Bytes } from '../core/value.ts'
import { type Sink, type SinkTarget, save } from './sink.ts'

const FOLDER = 'kodo-downloads'
const PART_BYTES = 16 << 20
const ABOUT = 'about.json'
const KEPT_MS = 24 * 3600 * 1000

/** Return whether this browser keeps files for the page. */
export function hasOpfs(): boolean {
  return isSecureContext && 'storage' in navigator && 'getDirectory' in navigator.storage && 'createWritable' in FileSystemFileHandle.prototype
}

const partName = (number: number): string => String(number).padStart(6, '0')

async function folder(): Promise<FileSystemDirectoryHandle> {
  const root = await navigator.storage.getDirectory()
  return root.getDirectoryHandle(FOLDER, { create: true })
}

export interface Unfinished {
  key: string
  /** What was said of it when it was begun. */
  about: Record<string, string>
  /** ms UTC of its beginning. */
  at: number
  finished: boolean
}

async function readAbout(place: FileSystemDirectoryHandle): Promise<Omit<Unfinished, 'key'> | undefined> {
  try {
    const file = await (await place.getFileHandle(ABOUT)).getFile()
    const { about, at, finished } = JSON.parse(await file.text()) as Omit<Unfinished, 'key'>
    return { about, at, finished }
  } catch {
    return undefined
  }
}

/** Return the downloads that are on this disk. */
export async function listOpfs(): Promise<Unfinished[]> {
  if (!hasOpfs()) return []
  const found: Unfinished[] = []
  for await (const [key, handle] of (await folder()).entries()) {
    const about = handle.kind === 'directory' ? await readAbout(handle) : undefined
    if (about) found.push({ key, ...about })
  }
  return found
}

/** Remove a download from this disk. */
export async function removeOpfs(key: string): Promise<void> {
  if (hasOpfs()) await (await folder()).removeEntry(key, { recursive: true }).catch(() => undefined)
}

/** Remove what was handed over long ago. */
export async function sweepOpfs(now: number): Promise<void> {
  for (const { key, at, finished } of await listOpfs()) if (finished && at < now - KEPT_MS) await removeOpfs(key)
}

export class OpfsSink implements Sink {
  readonly kind = 'opfs'
  #have: number
  #at: number
  #writable: FileSystemWritableFileStream | undefined
  #buffered = 0
  /** What a part is read into. */
  #room: ArrayBuffer | undefined

  private constructor(
    readonly target: SinkTarget,
    readonly key: string,
    readonly place: FileSystemDirectoryHandle,
    readonly began: number,
    have: number,
    readonly release: () => void
  ) {
    this.#have = have
    this.#at = have
  }

  static async open(target: SinkTarget): Promise<OpfsSink> {
    if (!hasOpfs()) throw new UsageError('This browser keeps no files for this page.')
    const wanted = target.key ?? crypto.randomUUID()
    const lock = await exclusive(wanted)
    // Another tab downloads the same: this one makes its own copy.
    const key = lock ? wanted : `${wanted}-${crypto.randomUUID().slice(0, 8)}`
    const place = await (await folder()).getDirectoryHandle(key, { create: true })
    const known = await readAbout(place)
    const at = known?.at ?? Date.now()
    await writeAbout(place, { about: target.about, at, finished: false })
    const have = known ? await wholeParts(place, target.size ?? 0) : 0
    return new OpfsSink(target, key, place, at, have, lock ?? (() => undefined))
  }

  get have(): number {
    return this.#have
  }

  async stored(from: number, to: number): Promise<Bytes> {
    const number = Math.floor(from / PART_BYTES)
    const file = await (await this.place.getFileHandle(partName(number))).getFile()
    const start = number * PART_BYTES
    return this.#read(file.slice(from - start, to - start))
  }

  /** Read into the memory of the part before: each with its own, they pile up by hundreds of MB before any is collected. */
  async #read(part: Blob): Promise<Bytes> {
    let room = this.#room?.byteLength === part.size ? this.#room : new ArrayBuffer(part.size)
    this.#room = undefined
    let reader: ReadableStreamBYOBReader | undefined
    try {
      reader = new Response(part).body?.getReader({ mode: 'byob' })
    } catch {
      // A browser without such readers.
    }
    if (!reader) return new Uint8Array(await part.arrayBuffer())
    for (let filled = 0; filled < part.size; ) {
      const { value, done } = await reader.read(new Uint8Array(room, filled))
      // It is shorter than it was: not what the manifest says.
      if (done) return new Uint8Array(0)
      room = value.buffer
      filled += value.length
    }
    await reader.cancel()
    this.#room = room
    return new Uint8Array(room)
  }

  async truncate(to: number): Promise<void> {
    const first = Math.floor(to / PART_BYTES)
    for await (const name of this.place.keys()) if (name !== ABOUT && Number(name) >= first) await this.place.removeEntry(name)
    this.#have = this.#at = first * PART_BYTES
  }

  async write(bytes: Bytes): Promise<void> {
    for (let from = 0; from < bytes.length; ) {
      this.#writable ??= await (await this.place.getFileHandle(partName(this.#at / PART_BYTES), { create: true })).createWritable()
      const part = bytes.subarray(from, from + PART_BYTES - this.#buffered)
      await this.#writable.write(part)
      from += part.length
      this.#buffered += part.length
      if (this.#buffered === PART_BYTES) await this.#close()
    }
  }

  async #close(): Promise<void> {
    const writable = this.#writable
    if (!writable) return
    this.#writable = undefined
    await writable.close()
    this.#at += this.#buffered
    this.#buffered = 0
  }

  async finish(): Promise<void> {
    await this.#close()
    const parts: File[] = []
    for (let number = 0; number * PART_BYTES < this.#at; number++) parts.push(await (await this.place.getFileHandle(partName(number))).getFile())
    await writeAbout(this.place, { about: this.target.about, at: Date.now(), finished: true })
    save(new Blob(parts, { type: this.target.mediaType }), this.target.name)
    this.release()
  }

  /** What is in a part that is not whole is lost, and nothing else. */
  async abort(): Promise<void> {
    await this.#writable?.abort().catch(() => undefined)
    this.#writable = undefined
    this.release()
  }

  async discard(): Promise<void> {
    await this.abort()
    await removeOpfs(this.key)
  }
}

/** Hold a name while this page lives; undefined where another page holds it. */
function exclusive(key: string): Promise<(() => void) | undefined> {
  return new Promise(resolve => {
    void navigator.locks.request(`${FOLDER}/${key}`, { ifAvailable: true }, lock => {
      if (!lock) {
        resolve(undefined)
        return undefined
      }
      return new Promise<void>(release => {
        resolve(() => release())
      })
    })
  })
}

async function writeAbout(place: FileSystemDirectoryHandle, about: Omit<Unfinished, 'key'>): Promise<void> {
  const writable = await (await place.getFileHandle(ABOUT, { create: true })).createWritable()
  await writable.write(JSON.stringify(about))
  await writable.close()
}

/** Return how many bytes there are in whole parts, from the first on without a gap. */
async function wholeParts(place: FileSystemDirectoryHandle, size: number): Promise<number> {
  let have = 0
  for (let number = 0; have < size; number++) {
    let part: number
    try {
      part = (await (await place.getFileHandle(partName(number))).getFile()).size
    } catch {
      break
    }
    if (part !== Math.min(PART_BYTES, size - have)) break
    have += part
  }
  return have
}
