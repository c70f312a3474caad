/** Outputs as a node gives them: the manifest, then ranges, two under way, each MiB verified before anybody sees it. */
import { equal, hex } from '../core/bytes.ts'
import { BrokenError, CallError, CapacityError, DeadlineError, IntegrityError, NetworkError, PeerError } from '../core/errors.ts'
import { type Bytes, fieldOf } from '../core/value.ts'
import { Backoff } from '../net/backoff.ts'
import type { NodeSessions } from '../net/node_sessions.ts'
import { CHUNK_BYTES, digest } from './hash.ts'

/** Chunk hashes asked for at once: well under the bound of a call's frame. */
const PAGE_CHUNKS = 8192
/** The largest file whose manifest is taken: 1 TiB, 32 MiB of hashes. */
const MAX_FILE_BYTES = 2 ** 40
/** Chunks of one range. Two ranges are under way, so this is also what the page holds of a file at most, twice. */
const RANGE_CHUNKS = 4
const RANGES = 2
/** Milliseconds in which a range has to come. */
const RANGE_MS = 120_000

export interface Manifest {
  size: number
  /** Hex, as the node says it. */
  sha256: string
  /** The SHA-256 of each chunk, one after the other. */
  chunks: Bytes
}

/** How many chunks a file of so many bytes has. */
const chunkCount = (size: number): number => Math.ceil(size / CHUNK_BYTES)

/** Fetch the whole manifest of an output. @throws PeerError: it is not a manifest. CapacityError: the file is larger than any. */
export async function fetchManifest(node: NodeSessions, fid: string, name: string, signal: AbortSignal): Promise<Manifest> {
  let first: { size: number; sha256: string; count: number; chunks: Bytes; whole: unknown } | undefined
  let have = 0
  do {
    const answer = await node.ask('output.manifest', { fid, name, from: have, count: PAGE_CHUNKS }, { signal })
    const [size, sha256, chunkBytes, chunks] = ['size', 'sha256', 'chunk_bytes', 'chunks'].map(key => fieldOf(answer, key))
    const wrong = () => new PeerError(`${node.label} sent a manifest that is none`)
    if (chunkBytes !== CHUNK_BYTES || typeof size !== 'number' || size < 0 || typeof sha256 !== 'string' || !/^[0-9a-f]{64}$/.test(sha256))
      throw wrong()
    if (size > MAX_FILE_BYTES) throw new CapacityError('The file is larger than a page can download: over 1 TiB.')
    first ??= { size, sha256, count: chunkCount(size), chunks: new Uint8Array(chunkCount(size) * 32), whole: fieldOf(answer, 'chunks_sha256') }
    if (first.size !== size || first.sha256 !== sha256) throw new PeerError(`${name} changed while it was downloaded`)
    if (!Array.isArray(chunks) || chunks.length > first.count - have || (chunks.length === 0 && have < first.count)) throw wrong()
    for (const chunk of chunks) {
      if (!(chunk instanceof Uint8Array) || chunk.length !== 32) throw wrong()
      first.chunks.set(chunk, have++ * 32)
    }
  } while (have < first.count)
  // The hash over the chunks' hashes names the file without hashing it twice; of one chunk the file's own does.
  if (typeof first.whole === 'string' && first.whole !== hex(await digest(first.chunks))) throw new IntegrityError(`The manifest of ${name} is not whole.`)
  if (first.count === 1 && hex(first.chunks) !== first.sha256) throw new IntegrityError(`The manifest of ${name} contradicts itself.`)
  return { size: first.size, sha256: first.sha256, chunks: first.chunks }
}

/** Return whether a chunk is what the manifest says. */
export async function isChunk(manifest: Manifest, number: number, bytes: Bytes): Promise<boolean> {
  return equal(await digest(bytes), manifest.chunks.subarray(number * 32, number * 32 + 32))
}

/** What is going on beside the bytes. */
export interface Weather {
  away(error: Error): void
  back(): void
}

class RangeReader {
  constructor(
    readonly node: NodeSessions,
    readonly fid: string,
    readonly name: string,
    readonly manifest: Manifest,
    readonly signal: AbortSignal,
    readonly weather: Weather
  ) {}

  /** Read a range once, unverified. */
  async #fetch(offset: number, length: number): Promise<Bytes> {
    const session = await this.node.session(this.signal)
    const args = { fid: this.fid, name: this.name, offset, length }
    const call = session.call('output.read', this.node.about('output.read', args), { timeout: RANGE_MS, signal: this.signal, limit: length + CHUNK_BYTES, parts: true })
    const range = new Uint8Array(length)
    let filled = 0
    for await (const batch of call.batches())
      for (const piece of batch) {
        if (!(piece instanceof Uint8Array) || piece.length > length - filled) throw new PeerError(`${this.node.label} sent what is not of ${this.name}`)
        range.set(piece, filled)
        filled += piece.length
      }
    if (filled < length) throw new BrokenError(`${this.node.label} sent less of ${this.name} than it said`)
    return range
  }

  async #good(first: number, range: Bytes): Promise<boolean> {
    const checks: Promise<boolean>[] = []
    for (let at = 0; at < range.length; at += CHUNK_BYTES)
      checks.push(isChunk(this.manifest, first + at / CHUNK_BYTES, range.subarray(at, at + CHUNK_BYTES)))
    return (await Promise.all(checks)).every(Boolean)
  }

  /** Read a range, verified; over as many sessions as it takes. */
  async read(first: number): Promise<Bytes> {
    const offset = first * CHUNK_BYTES
    const length = Math.min(RANGE_CHUNKS * CHUNK_BYTES, this.manifest.size - offset)
    const backoff = new Backoff()
    let [wrong, short] = [0, 0]
    for (;;) {
      try {
        const range = await this.#fetch(offset, length)
        this.weather.back()
        if (await this.#good(first, range)) return range
        if (++wrong === 2) throw new IntegrityError(`${this.name} did not arrive as its node announced it.`)
      } catch (error) {
        this.signal.throwIfAborted()
        if (!(await this.#goesOn(error))) throw error
        // A node that answers, and always too little, is not away.
        if (error instanceof BrokenError && this.node.status === 'connected' && ++short === 8) throw error
        this.weather.away(error as Error)
        await backoff.wait(this.signal)
      }
    }
  }

  async #goesOn(error: unknown): Promise<boolean> {
    if (error instanceof NetworkError || error instanceof DeadlineError) return true
    if (!(error instanceof CallError)) return false
    if (error.code === 401) return this.node.logins.again(await this.node.session(this.signal)).catch(() => true)
    return error.code === 503 || error.code === 429 || error.reason === 'too-slow'
  }
}

/** Give an output's bytes from chunk `from` on, in order and verified, up to 4 MiB at once. */
export async function* verified(
  node: NodeSessions,
  fid: string,
  name: string,
  manifest: Manifest,
  options: { from?: number; signal: AbortSignal; weather?: Weather }
): AsyncGenerator<Bytes> {
  const count = chunkCount(manifest.size)
  const ended = new AbortController()
  const signal = AbortSignal.any([options.signal, ended.signal])
  const weather = options.weather ?? { away: () => undefined, back: () => undefined }
  const reader = new RangeReader(node, fid, name, manifest, signal, weather)
  const underWay: Promise<Bytes>[] = []
  let next = options.from ?? 0
  const begin = () => {
    while (underWay.length < RANGES && next < count) {
      const range = reader.read(next)
      range.catch(() => undefined)
      underWay.push(range)
      next += RANGE_CHUNKS
    }
  }
  try {
    begin()
    for (;;) {
      const range = underWay.shift()
      if (!range) return
      const bytes = await range
      begin()
      yield bytes
    }
  } finally {
    ended.abort()
  }
}

/** Read an output as a whole, verified. @throws CapacityError: it is larger than is shown in place. */
export async function readWhole(
  node: NodeSessions,
  fid: string,
  name: string,
  options: { maxBytes?: number; signal?: AbortSignal }
): Promise<Bytes> {
  const signal = options.signal ?? new AbortController().signal
  const manifest = await fetchManifest(node, fid, name, signal)
  const most = options.maxBytes ?? 16 << 20
  if (manifest.size > most) throw new CapacityError(`${name} has ${manifest.size} bytes; up to ${most} are shown here. Download it.`)
  const whole = new Uint8Array(manifest.size)
  let filled = 0
  for await (const bytes of verified(node, fid, name, manifest, { signal })) {
    whole.set(bytes, filled)
    filled += bytes.length
  }
  return whole
}
