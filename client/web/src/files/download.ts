/** One output, downloaded and verified by chunks; what the browser's disk has of it already is verified again, and kept. */
import { hex, utf8 } from '../core/bytes.ts'
import { checkOutputName, fileName } from '../core/names.ts'
import type { DownloadHandle, DownloadOptions, DownloadResult } from '../net/api.ts'
import type { NodeSessions } from '../net/node_sessions.ts'
import { CHUNK_BYTES, digest } from './hash.ts'
import type { Sink } from './sink.ts'
import { openSink } from './sinks.ts'
import { type Manifest, fetchManifest, isChunk, verified } from './source.ts'
import { Transfer } from './transfer.ts'

export class ChunkedDownload extends Transfer<DownloadResult> implements DownloadHandle {
  #size: number | undefined

  constructor(
    readonly node: NodeSessions,
    readonly fid: string,
    readonly name: string,
    readonly options: DownloadOptions
  ) {
    super(options.signal)
  }

  get size(): number | undefined {
    return this.#size
  }

  protected async run(signal: AbortSignal): Promise<DownloadResult> {
    const file = this.options.saveAs ?? fileName(checkOutputName(this.name))
    const manifest = await fetchManifest(this.node, this.fid, this.name, signal)
    this.#size = manifest.size
    const sink = await openSink(
      {
        name: file,
        size: manifest.size,
        // What a part is a part of: other content, or another output, has another key.
        key: hex(await digest(utf8(`${this.node.peerId} ${this.fid} ${this.name} ${manifest.sha256} ${manifest.size}`))).slice(0, 40),
        mediaType: 'application/octet-stream',
        handle: this.options.handle,
        about: { peerId: this.node.peerId, fid: this.fid, name: this.name, size: String(manifest.size) }
      },
      this.options.sink
    )
    try {
      let have = await goodBytes(sink, manifest, signal)
      this.progress(have)
      const from = have / CHUNK_BYTES
      if (have < manifest.size)
        for await (const bytes of verified(this.node, this.fid, this.name, manifest, { from, signal, weather: this.weather })) {
          const { length } = bytes
          await sink.write(bytes)
          have += length
          this.progress(have)
        }
      signal.throwIfAborted()
      await sink.finish()
      return { name: this.name, file, size: manifest.size, sha256: manifest.sha256, sink: sink.kind }
    } catch (error) {
      await sink.abort()
      throw error
    }
  }
}

/** Verify what a sink has already; return how much of it is good, after what is not was dropped. */
async function goodBytes(sink: Sink, manifest: Manifest, signal: AbortSignal): Promise<number> {
  for (let at = 0; at < sink.have; at += CHUNK_BYTES) {
    signal.throwIfAborted()
    const chunk = await sink.stored!(at, Math.min(at + CHUNK_BYTES, sink.have))
    if (!(await isChunk(manifest, at / CHUNK_BYTES, chunk))) {
      await sink.truncate!(at)
      break
    }
  }
  return sink.have
}
