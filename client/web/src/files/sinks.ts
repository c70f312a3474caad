/** Where downloaded bytes go, in order: a file that was chosen, the browser's own disk, its downloads, or memory. */
import { CapacityError, UsageError } from '../core/errors.ts'
import type { Bytes } from '../core/value.ts'
import type { SinkKind } from '../net/api.ts'
import { OpfsSink, hasOpfs } from './opfs.ts'
import { type Sink, type SinkTarget, save } from './sink.ts'
import { StreamSink, hasStream } from './stream-sink.ts'

/** What goes through memory at most. */
export const MAX_BLOB_BYTES = 64 << 20

const hasPicker = (): boolean => 'showSaveFilePicker' in globalThis && isSecureContext

/** Return the sinks of this browser, the best first. */
export function sinks(): SinkKind[] {
  const kinds: [SinkKind, boolean][] = [
    ['picker', hasPicker()],
    ['opfs', hasOpfs()],
    ['stream', hasStream()],
    ['blob', true]
  ]
  return kinds.filter(([, is]) => is).map(([kind]) => kind)
}

class BlobSink implements Sink {
  readonly kind = 'blob'
  readonly have = 0
  readonly #target: SinkTarget
  #parts: Bytes[] = []
  #size = 0

  constructor(target: SinkTarget) {
    this.#target = target
  }

  write(bytes: Bytes): Promise<void> {
    this.#size += bytes.length
    if (this.#size > MAX_BLOB_BYTES) return Promise.reject(tooLarge())
    this.#parts.push(bytes)
    return Promise.resolve()
  }

  finish(): Promise<void> {
    save(new Blob(this.#parts, { type: this.#target.mediaType }), this.#target.name)
    return this.abort()
  }

  abort(): Promise<void> {
    this.#parts = []
    return Promise.resolve()
  }
}

class PickerSink implements Sink {
  readonly kind = 'picker'
  readonly have = 0

  constructor(readonly writable: FileSystemWritableFileStream) {}

  write(bytes: Bytes): Promise<void> {
    return this.writable.write(bytes)
  }

  finish(): Promise<void> {
    return this.writable.close()
  }

  abort(): Promise<void> {
    return this.writable.abort()
  }
}

const tooLarge = () =>
  new CapacityError('This browser, at this address, downloads no files of this size. Open the page by `koco web`, or over https.')

/** Choose where a file goes, where that was not said. */
async function choose(size: number | undefined): Promise<SinkKind> {
  const kinds = sinks().filter(kind => kind !== 'picker')
  const large = size === undefined || size > MAX_BLOB_BYTES
  if (!large) return 'blob'
  if (kinds.includes('opfs') && size !== undefined) {
    const { quota = 0, usage = 0 } = await navigator.storage.estimate()
    if (quota - usage > size * 1.1) return 'opfs'
  }
  if (kinds.includes('stream')) return 'stream'
  if (size === undefined) return 'blob'
  throw tooLarge()
}

/** Open where a file goes. @throws CapacityError: it is too large for all there is. */
export async function openSink(target: SinkTarget, wanted?: SinkKind): Promise<Sink> {
  const kind = wanted ?? (target.handle ? 'picker' : await choose(target.size))
  switch (kind) {
    case 'picker':
      if (!target.handle) throw new UsageError('Choose a file first.')
      return new PickerSink(await target.handle.createWritable())
    case 'opfs':
      return OpfsSink.open(target)
    case 'stream':
      return StreamSink.open(target)
    case 'blob':
      if (target.size !== undefined && target.size > MAX_BLOB_BYTES) throw tooLarge()
      return new BlobSink(target)
  }
}
