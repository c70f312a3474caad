/** The calls of a node, whatever its sessions are: of its own, or those of the node that an invitation is for. */
import { CallError, NetworkError, PeerError } from '../core/errors.ts'
import type { Path } from '../core/path.ts'
import { type Bytes, type Row, type Value, fieldOf, isRow } from '../core/value.ts'
import { ChunkedDownload } from '../files/download.ts'
import { readWhole } from '../files/source.ts'
import { ResumableUpload } from '../files/upload.ts'
import { ZipDownload } from '../files/zip.ts'
import type {
  CallOptions,
  DownloadHandle,
  DownloadOptions,
  FollowedRun,
  FollowOptions,
  NodeClient,
  NodeNews,
  NodeStatus,
  StreamOptions,
  Unsubscribe,
  UploadHandle
} from './api.ts'
import { Follow } from './follow.ts'
import type { LoginKeeper } from './logins.ts'
import type { Args, NodeSessions } from './node_sessions.ts'
import type { Session } from './session.ts'

const CALL_MS = 30_000
/** How often one call is made when its session breaks. */
const ATTEMPTS = 3
const MAX_PAGE = 500
const MAX_ROWS = 100_000
/** What may be done twice. */
const REPEATABLE = /(\.(list|state|get|schema|info|whoami|manifest|open|ack|revoke))$/

export abstract class NodeCalls implements NodeClient, NodeSessions {
  abstract readonly peerId: string
  abstract readonly label: string
  abstract readonly status: NodeStatus
  abstract readonly path: Path | undefined
  abstract readonly logins: LoginKeeper

  abstract on(listener: (news: NodeNews) => void): Unsubscribe
  abstract session(signal?: AbortSignal): Promise<Session>
  abstract whyGone(fid: string): CallError | undefined
  abstract close(): void

  about(_op: string, args: Args): Args {
    return args
  }

  async connect(options: CallOptions = {}): Promise<void> {
    await this.session(options.signal)
  }

  async call(op: string, args: Args = {}, options: CallOptions = {}): Promise<Value> {
    const repeat = options.repeat ?? (REPEATABLE.test(op) || args['key'] !== undefined)
    for (let attempt = 1; ; attempt++) {
      const session = await this.session(options.signal)
      try {
        const answer = await session.call(op, this.about(op, args), { timeout: options.timeout ?? CALL_MS, signal: options.signal }).done()
        session.answered()
        return answer
      } catch (error) {
        if (attempt === ATTEMPTS) throw error
        if (error instanceof CallError && error.code === 401 && !op.startsWith('auth.') && (await this.logins.again(session))) continue
        if (!(error instanceof NetworkError) || !repeat) throw error
      }
    }
  }

  async ask(op: string, args: Args = {}, options: CallOptions = {}): Promise<Row> {
    const answer = await this.call(op, args, options)
    if (!isRow(answer)) throw new PeerError(`the answer to ${op} is no map`)
    return answer
  }

  async *stream(op: string, args: Args = {}, options: StreamOptions = {}): AsyncGenerator<Value> {
    const session = await this.session(options.signal)
    const call = session.call(op, this.about(op, args), { signal: options.signal, ...(options.limit === undefined ? {} : { limit: options.limit }) })
    for await (const batch of call.batches()) yield* batch
  }

  async *pages(op: string, args: Args = {}, options: CallOptions = {}): AsyncGenerator<Row> {
    let [page, given, size] = [1, 0, MAX_PAGE]
    while (given < MAX_ROWS) {
      let answer: Row
      try {
        answer = await this.ask(op, { ...args, p: page, pp: size }, options)
      } catch (error) {
        const fit = error instanceof CallError && error.reason === 'page-too-large' ? fieldOf(error.data, 'pp') : undefined
        if (typeof fit !== 'number' || !(fit > 0 && fit < size)) throw error
        // Pages begin at multiples of their size: the next has to begin where the last one ended.
        size = Math.floor(fit)
        while (given % size !== 0) size--
        page = given / size + 1
        continue
      }
      const rows = fieldOf(answer, 'result')
      if (!Array.isArray(rows) || !rows.every(isRow)) throw new PeerError(`the answer to ${op} has no rows`)
      given += rows.length
      yield* rows
      const total = fieldOf(answer, 'total_pages')
      if (rows.length === 0 || page >= (typeof total === 'number' ? total : 1)) return
      page++
    }
  }

  follow(fid: string, options: FollowOptions = {}): FollowedRun {
    return new Follow(this, fid, options)
  }

  download(fid: string, name: string, options: DownloadOptions = {}): DownloadHandle {
    return new ChunkedDownload(this, fid, name, options)
  }

  downloadZip(fid: string, names: readonly string[], options: DownloadOptions = {}): DownloadHandle {
    return new ZipDownload(this, fid, names, options)
  }

  read(fid: string, name: string, options: { maxBytes?: number; signal?: AbortSignal } = {}): Promise<Bytes> {
    return readWhole(this, fid, name, options)
  }

  upload(file: Blob, name: string, options: { signal?: AbortSignal } = {}): UploadHandle {
    return new ResumableUpload(this, file, name, options)
  }
}
