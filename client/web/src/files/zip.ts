/** Outputs as one zip file (APPNOTE 6.3.10): stored, with sizes after the bytes and 64-bit fields, written as they arrive. */
import { concat, utf8 } from '../core/bytes.ts'
import { checkOutputName, storedNames } from '../core/names.ts'
import type { Bytes } from '../core/value.ts'
import type { DownloadHandle, DownloadOptions, DownloadResult } from '../net/api.ts'
import type { NodeSessions } from '../net/node_sessions.ts'
import { openSink } from './sinks.ts'
import { fetchManifest, verified } from './source.ts'
import { Transfer } from './transfer.ts'

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1
  return value
})

/** Go on with a CRC-32; begins and ends with 0. */
export function crc32(before: number, bytes: Uint8Array): number {
  let crc = ~before
  for (const byte of bytes) crc = TABLE[(crc ^ byte) & 255]! ^ (crc >>> 8)
  return ~crc >>> 0
}

/** A record of fields of 2, 4 or 8 bytes, little endian. */
function record(...fields: (readonly [size: 2 | 4 | 8, value: number])[]): Bytes {
  const out = new DataView(new ArrayBuffer(fields.reduce((sum, [size]) => sum + size, 0)))
  let at = 0
  for (const [size, value] of fields) {
    if (size === 2) out.setUint16(at, value, true)
    else if (size === 4) out.setUint32(at, value, true)
    else out.setBigUint64(at, BigInt(value), true)
    at += size
  }
  return new Uint8Array(out.buffer)
}

/** UTF-8 names (bit 11), sizes and CRC after the bytes (bit 3). */
const FLAGS = 0x0808
const VERSION = 45
const MANY = 0xffff
const LARGE = 0xffff_ffff

interface Entry {
  path: Bytes
  size: number
  crc: number
  offset: number
}

/** MS-DOS date and time, which know no zone. */
function dosTime(at: Date): [time: number, date: number] {
  const date = ((Math.max(at.getFullYear(), 1980) - 1980) << 9) | ((at.getMonth() + 1) << 5) | at.getDate()
  return [(at.getHours() << 11) | (at.getMinutes() << 5) | (at.getSeconds() >> 1), date]
}

/** Writes an archive piece by piece; what is given back goes out in that order. */
export class ZipWriter {
  readonly #entries: Entry[] = []
  readonly #paths = new Set<string>()
  readonly #time: [number, number]
  #offset = 0

  constructor(at: Date) {
    this.#time = dosTime(at)
  }

  #out(bytes: Bytes): Bytes {
    this.#offset += bytes.length
    return bytes
  }

  /** Begin a file; a path that is there already gets a number. */
  begin(path: string): Bytes {
    let unique = path
    for (let number = 2; this.#paths.has(unique); number++) unique = path.replace(/(\.[^./]*)?$/, ` (${number})$1`)
    this.#paths.add(unique)
    const name = utf8(unique)
    this.#entries.push({ path: name, size: 0, crc: 0, offset: this.#offset })
    const [time, date] = this.#time
    const head = record([4, 0x04034b50], [2, VERSION], [2, FLAGS], [2, 0], [2, time], [2, date], [4, 0], [4, LARGE], [4, LARGE], [2, name.length], [2, 20])
    return this.#out(concat(head, name, record([2, 1], [2, 16], [8, 0], [8, 0])))
  }

  /** Take bytes of the file that was begun. */
  data(bytes: Bytes): Bytes {
    const entry = this.#entries.at(-1)!
    entry.crc = crc32(entry.crc, bytes)
    entry.size += bytes.length
    return this.#out(bytes)
  }

  /** End the file that was begun. */
  end(): Bytes {
    const { crc, size } = this.#entries.at(-1)!
    return this.#out(record([4, 0x08074b50], [4, crc], [8, size], [8, size]))
  }

  /** End the archive: its directory. */
  finish(): Bytes {
    const [time, date] = this.#time
    const start = this.#offset
    const rows = this.#entries.map(({ path, size, crc, offset }) =>
      concat(
        record(
          [4, 0x02014b50], [2, VERSION], [2, VERSION], [2, FLAGS], [2, 0], [2, time], [2, date], [4, crc], [4, LARGE], [4, LARGE],
          [2, path.length], [2, 28], [2, 0], [2, 0], [2, 0], [4, 0], [4, LARGE]
        ),
        path,
        record([2, 1], [2, 24], [8, size], [8, size], [8, offset])
      )
    )
    const directory = concat(...rows)
    const end = start + directory.length
    const count = this.#entries.length
    return concat(
      directory,
      record([4, 0x06064b50], [8, 44], [2, VERSION], [2, VERSION], [4, 0], [4, 0], [8, count], [8, count], [8, directory.length], [8, start]),
      record([4, 0x07064b50], [4, 0], [8, end], [4, 1]),
      record([4, 0x06054b50], [2, 0], [2, 0], [2, MANY], [2, MANY], [4, LARGE], [4, LARGE], [2, 0])
    )
  }
}

export class ZipDownload extends Transfer<DownloadResult> implements DownloadHandle {
  #size: number | undefined

  constructor(
    readonly node: NodeSessions,
    readonly fid: string,
    readonly names: readonly string[],
    readonly options: DownloadOptions
  ) {
    super(options.signal)
  }

  get name(): string {
    return this.options.saveAs ?? `${this.fid}.zip`
  }

  /** The bytes of the files; the archive is a little larger. */
  get size(): number | undefined {
    return this.#size
  }

  protected async run(signal: AbortSignal): Promise<DownloadResult> {
    // Whoever unpacks it may have any disk.
    const stored = storedNames(this.names.map(checkOutputName))
    const files = []
    for (const name of this.names) files.push({ name, manifest: await fetchManifest(this.node, this.fid, name, signal) })
    const size = files.reduce((sum, { manifest }) => sum + manifest.size, 0)
    this.#size = size
    // About 200 bytes a file are added; only which sink it is depends on it.
    const target = { name: this.name, size: undefined, key: undefined, mediaType: 'application/zip', handle: this.options.handle, about: {} }
    const sink = await openSink(target, this.options.sink ?? (this.options.handle ? 'picker' : size < 48 << 20 ? 'blob' : undefined))
    try {
      const zip = new ZipWriter(new Date())
      let have = 0
      for (const { name, manifest } of files) {
        await sink.write(zip.begin(stored.get(name)!))
        for await (const bytes of verified(this.node, this.fid, name, manifest, { signal, weather: this.weather })) {
          have += bytes.length
          await sink.write(zip.data(bytes))
          this.progress(have)
        }
        await sink.write(zip.end())
      }
      signal.throwIfAborted()
      await sink.write(zip.finish())
      await sink.finish()
      return { name: this.name, file: this.name, size: have, sha256: '', sink: sink.kind }
    } catch (error) {
      await sink.abort()
      throw error
    }
  }
}
