/** A file for inputs: hashed, then sent from where the node has it; a cut upload goes on there. */
import { hex } from '../core/bytes.ts'
import { CallError, DeadlineError, IntegrityError, NetworkError, PeerError, UsageError } from '../core/errors.ts'
import { fieldOf, isRow } from '../core/value.ts'
import type { UploadHandle } from '../net/api.ts'
import { Backoff } from '../net/backoff.ts'
import type { NodeSessions } from '../net/node_sessions.ts'
import { hashFile } from './hash.ts'
import { Transfer } from './transfer.ts'

const PIECE_BYTES = 64 << 10
const READ_BYTES = 1 << 20
/** Chunk hashes that fit a call; a larger file is proved by its whole hash alone. */
const MAX_CHUNKS = 16384
/** How long an upload may stand still before it is tried again, ms. */
const STALL_MS = 60_000
const UPLOAD_ID = /^upload-[0-7][0-9abcdefghjkmnpqrstvwxyz]{25}$/

interface Place {
  upload: string
  offset: number
  complete: boolean
}

export class ResumableUpload extends Transfer<string> implements UploadHandle {
  readonly size: number

  constructor(
    readonly node: NodeSessions,
    readonly file: Blob,
    readonly name: string,
    options: { signal?: AbortSignal }
  ) {
    super(options.signal)
    this.size = file.size
  }

  protected async run(signal: AbortSignal): Promise<string> {
    let hashes
    try {
      hashes = await hashFile(this.file, signal)
    } catch (error) {
      signal.throwIfAborted()
      throw new UsageError(`${this.name} cannot be read: ${error instanceof Error ? error.message : String(error)}`)
    }
    let about = { name: this.name, size: this.size, sha256: hex(hashes.sha256) }
    const chunks = hashes.chunks.length <= MAX_CHUNKS ? { chunks: hashes.chunks } : {}
    const backoff = new Backoff()
    let reached = -1
    for (;;) {
      try {
        const place = this.#read(await this.node.call('input.write', { ...about, ...chunks }, { signal, repeat: true }))
        this.become('running')
        if (place.offset > reached) backoff.succeeded()
        reached = Math.max(reached, place.offset)
        this.progress(place.offset)
        if (place.complete) return place.upload
        await this.#send(about, place, signal)
      } catch (error) {
        signal.throwIfAborted()
        if (error instanceof CallError && error.reason === 'bad-hash')
          throw new IntegrityError(`${this.name} changed while it was uploaded, or arrived wrong.`)
        // An older node takes no folders.
        if (error instanceof CallError && error.reason === 'bad-args' && about.name.includes('/')) {
          about = { ...about, name: about.name.split('/').at(-1)! }
          continue
        }
        const refused = error instanceof CallError && error.reason !== 'busy' && error.reason !== 'too-slow' && error.code !== 503
        if (refused || !(error instanceof CallError || error instanceof NetworkError || error instanceof DeadlineError)) throw error
        this.become('away')
        await backoff.wait(signal)
      }
    }
  }

  #read(answer: unknown): Place {
    const row = isRow(answer) ? answer : {}
    const [upload, offset, complete] = ['upload', 'offset', 'complete'].map(key => fieldOf(row, key))
    if (typeof upload !== 'string' || !UPLOAD_ID.test(upload) || typeof offset !== 'number' || offset < 0 || offset > this.size)
      throw new PeerError(`the answer of ${this.node.label} to input.write is not one`)
    return { upload, offset, complete: complete === true }
  }

  async #send(about: Record<string, string | number>, place: Place, signal: AbortSignal): Promise<void> {
    const session = await this.node.session(signal)
    const stalled = new AbortController()
    let timer: ReturnType<typeof setTimeout> | undefined
    const moved = () => {
      clearTimeout(timer)
      timer = setTimeout(() => stalled.abort(new DeadlineError(`${this.node.label} takes no more of ${this.name}`)), STALL_MS)
    }
    const { file, size } = this
    const progress = (bytes: number) => this.progress(bytes)
    async function* pieces(): AsyncGenerator<Uint8Array> {
      for (let at = place.offset; at < size; at += READ_BYTES) {
        const block = new Uint8Array(await file.slice(at, Math.min(at + READ_BYTES, size)).arrayBuffer())
        for (let from = 0; from < block.length; from += PIECE_BYTES) {
          yield block.subarray(from, from + PIECE_BYTES)
          moved()
        }
        progress(at + block.length)
      }
    }
    moved()
    try {
      const args = { ...about, upload: place.upload, offset: place.offset }
      const call = session.call('input.write', this.node.about('input.write', args), { upload: pieces(), signal: AbortSignal.any([signal, stalled.signal]) })
      const answer = this.#read(await call.done())
      if (!answer.complete) throw new IntegrityError(`${this.name} is shorter than it was when its upload began.`)
    } finally {
      clearTimeout(timer)
    }
  }
}
