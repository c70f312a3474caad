/** What takes the bytes of a download, in order. */
import type { Bytes } from '../core/value.ts'
import type { SinkKind } from '../net/api.ts'

export interface Sink {
  readonly kind: SinkKind
  /** Bytes that are there already, of an earlier try: a multiple of a chunk, or all. */
  readonly have: number
  /** Return what is there, to be verified again, good until the next call; only where `have` is not 0. */
  stored?(from: number, to: number): Promise<Bytes>
  /** Forget what is there from a byte on. */
  truncate?(to: number): Promise<void>
  write(bytes: Bytes): Promise<void>
  /** All is written: hand the file to the person. */
  finish(): Promise<void>
  /** It will not be finished now; what can be resumed stays. */
  abort(): Promise<void>
  /** It will never be finished: nothing of it stays. */
  discard?(): Promise<void>
}

/** What a sink is for. */
export interface SinkTarget {
  /** The name that the file shall have. */
  name: string
  /** Undefined where it is not known before the end. */
  size: number | undefined
  /** Names the content: what is there of the same content is gone on with. */
  key: string | undefined
  mediaType: string
  handle: FileSystemFileHandle | undefined
  /** What the browser remembers of it while it is not finished. */
  about: Record<string, string>
}

/** Make the browser save a blob under a name, as a click on a link does. */
export function save(blob: Blob, name: string): void {
  const url = URL.createObjectURL(blob)
  const anchor = document.createElement('a')
  anchor.href = url
  anchor.download = name
  anchor.click()
  // Revoked at once, some browsers have not begun to read yet.
  setTimeout(() => URL.revokeObjectURL(url), 60_000)
}
