/** SHA-256: by the browser where it may, else by a library. */
import { sha256 } from '@noble/hashes/sha2.js'
import type { Bytes } from '../core/value.ts'
import { subtle } from '../net/crypto.ts'

/** Bytes of every chunk but the last. */
export const CHUNK_BYTES = 1 << 20

export async function digest(bytes: Bytes): Promise<Bytes> {
  const web = subtle()
  return web ? new Uint8Array(await web.digest('SHA-256', bytes)) : (sha256(bytes))
}

/** The most that is hashed at once: it has to be in memory as a whole. */
const WHOLE_BYTES = 64 << 20

/** A file's SHA-256, and those of its chunks. */
export interface FileHashes {
  sha256: Bytes
  chunks: Bytes[]
}

/**
 * Hash a file, whole and by chunks.
 * @throws NotReadableError (a DOMException): it cannot be read, or changed since it was chosen.
 */
export async function hashFile(file: Blob, signal: AbortSignal): Promise<FileHashes> {
  const chunks: Bytes[] = []
  // What is larger is hashed as it is read: the browser itself has no such hash.
  const whole = file.size > WHOLE_BYTES || !subtle() ? sha256.create() : undefined
  for (let at = 0; at < file.size; at += CHUNK_BYTES) {
    signal.throwIfAborted()
    const chunk = new Uint8Array(await file.slice(at, at + CHUNK_BYTES).arrayBuffer())
    whole?.update(chunk)
    chunks.push(await digest(chunk))
  }
  const all = whole ? (whole.digest() as Bytes) : await digest(new Uint8Array(await file.arrayBuffer()))
  return { sha256: all, chunks }
}
