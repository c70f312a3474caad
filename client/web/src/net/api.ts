/**
 * What pages program against. Types only: `openEngine` of `net/engine.ts` makes the one `Engine` of a page.
 *
 * Everything that a node says is untrusted: `Value`s may have any shape, texts any length and characters. Read them by
 * `fieldOf`, `textOf`, `numberOf` of `core/value.ts`. Errors are those of `core/errors.ts`; a node's refusal is a
 * `CallError` with `code`, `reason`, `message` and `data`. Times are ms UTC, sizes bytes. All waiting calls take an
 * `AbortSignal` and end with its reason.
 */
import type { Link } from '../core/link.ts'
import type { Begun, Terms, Tokens } from '../core/oidc.ts'
import type { Path } from '../core/path.ts'
import type { TurnOffer } from '../core/turn.ts'
import type { RunEvent, RunView } from '../core/runview.ts'
import type { Bytes, Row, Sendable, Value } from '../core/value.ts'

export type { Link } from '../core/link.ts'
export type { Path } from '../core/path.ts'
export type { OpenLock, RunEvent, RunState, RunView } from '../core/runview.ts'
export type { Bytes, Row, Sendable, Value } from '../core/value.ts'

/** Ends a subscription; may be called again. */
export type Unsubscribe = () => void

/** One kind of news: `on` calls back for each, synchronously, until it is unsubscribed. */
export interface Listenable<News> {
  on(listener: (news: News) => void): Unsubscribe
}

export interface EngineOptions {
  /** Base URLs where registries answer `GET /nodes` and `GET /flows`; of this page's origin, or allowed by its CSP. */
  registries?: readonly string[]
  /** Where else a node that moved is looked for (the local network, through `koco web`): its multiaddrs. */
  findAddresses?: (peerId: string, signal: AbortSignal) => Promise<readonly string[]>
  /** Which TURN servers the registries besides `registries` offer for a node, and where they say that it is; each when it has said so. */
  findTurn?: (peerId: string, signal: AbortSignal) => readonly Promise<TurnOffer>[]
  /** Asks issuers of tokens for the page, which may ask its own origin alone. */
  issuers?: IssuerRelay
  /** Name of the database of identity, pins and logins; by default `kodo`. */
  database?: string
}

/** All of this page's sessions, and what this browser remembers. Made by `openEngine(options)`. */
export interface Engine {
  readonly identity: IdentityStore
  readonly pins: Pins
  readonly knownRuns: KnownRuns
  readonly registries: readonly RegistryClient[]
  /**
   * Return the client of a node; the same one for the same peer id. Nothing is dialled before the first call.
   * @throws IdentityError from its calls when the target's name is pinned to another peer id.
   */
  node(target: NodeTarget): NodeClient
  /** Return what an operator does with the registry at `url`: signed with this browser's key. */
  operator(url: string): RegistryOperator
  /** Logging in at issuers. */
  readonly issuerLogin: IssuerLogin
  /** Return the clients made so far. */
  nodes(): readonly NodeClient[]
  /** Open a shared run, or an invitation: dials its node, and opens the link again in each new session. */
  openLink(link: Link, options?: CallOptions): Promise<LinkedRun>
  /** Return what kind of connection this browser and page can make, before anything is dialled. */
  capabilities(): Promise<Capabilities>
  /** Downloads that a reload or a closed page cut: the same `download` goes on where they were. */
  unfinished(): Promise<UnfinishedDownload[]>
  /** Remove what an unfinished download left on this browser's disk. */
  discard(key: string): Promise<void>
  /** Whether this browser keeps nothing (a private window of some): the identity ends with the page. Known after first use. */
  readonly forgetful: boolean
  close(): void
}

export interface UnfinishedDownload {
  key: string
  peerId: string
  fid: string
  name: string
  size: number
  /** When it was begun. */
  at: number
}

/** Where a node is said to be. Only the peer id is proved, by each session. */
export interface NodeTarget {
  peerId: string
  /** Multiaddrs, e.g. `/ip4/192.0.2.7/udp/4711/webrtc-direct/certhash/uEi…` with or without `/p2p/PEER`. */
  addrs: readonly string[]
  /** The name that it was chosen by: pinned to the peer id once that is proved. Leave it out for names merely shown. */
  name?: string
  /** The name that it claims where it was found, to be shown. */
  label?: string
}

export interface Capabilities {
  /** RTCPeerConnection exists. */
  webrtc: boolean
  /** A secure context: `crypto.subtle`, OPFS, service workers, clipboard. */
  secure: boolean
  /** Firefox gathers no loopback candidate: a node on 127.0.0.1 only cannot be reached from it. */
  loopback: boolean
  /** State of the permission `local-network-access`; `unknown` where the browser knows none. */
  localNetwork: 'granted' | 'denied' | 'prompt' | 'unknown'
  /** How files may be kept while and after they are downloaded. */
  sinks: readonly SinkKind[]
}

export type NodeStatus =
  /** Nothing was asked yet, or `close` was called. */
  | 'idle'
  | 'connecting'
  | 'connected'
  /** The session was lost; it is dialled again when something waits for it. */
  | 'away'

export type NodeNews = { type: 'status'; status: NodeStatus; error?: Error } | { type: 'resumed' } | { type: 'path'; path: Path }

export interface CallOptions {
  /** Milliseconds; 30,000 by default, 0 for no deadline. */
  timeout?: number
  signal?: AbortSignal
  /** Make it again when the session breaks. Default: for reads, what may be done twice, and what carries a `key`. */
  repeat?: boolean
}

export interface StreamOptions {
  signal?: AbortSignal
  /** Most bytes of items that may wait unread before the call is given up with `CapacityError`; 32 MiB by default. */
  limit?: number
}

/** One node, dialled when needed and again when it was lost. */
export interface NodeClient extends Listenable<NodeNews> {
  readonly peerId: string
  /** What the node is called: the target's name, else its label, else its peer id. */
  readonly label: string
  readonly status: NodeStatus
  /** The way that the latest session takes now, and over which relay; undefined before the first. News tell of another one. */
  readonly path: Path | undefined
  readonly logins: Logins
  /** Dial now; returns when the peer id is proved and the login resumed. */
  connect(options?: CallOptions): Promise<void>
  /** Make a call without items. Example: `call('run.kill', { fid })`. */
  call(op: string, args?: { readonly [key: string]: Sendable }, options?: CallOptions): Promise<Value>
  /** As `call`, for ops whose answer is a map. @throws PeerError: the answer is not a map. */
  ask(op: string, args?: { readonly [key: string]: Sendable }, options?: CallOptions): Promise<Row>
  /** The items of a call on one session, in order; leaving the loop cancels it. Use `follow` for events. */
  stream(op: string, args?: { readonly [key: string]: Sendable }, options?: StreamOptions): AsyncIterable<Value>
  /** The rows of a paged op (`run.list`, `flow.list`, …), page after page. */
  pages(op: string, args?: { readonly [key: string]: Sendable }, options?: CallOptions): AsyncIterable<Row>
  /** Follow a run: events come at once and again after lost sessions. Starts by itself; `stop` it. */
  follow(fid: string, options?: FollowOptions): FollowedRun
  /** Download an output, verified chunk by chunk. Starts by itself. */
  download(fid: string, name: string, options?: DownloadOptions): DownloadHandle
  /** Download outputs as one zip file (stored, not compressed), verified on the way. */
  downloadZip(fid: string, names: readonly string[], options?: DownloadOptions): DownloadHandle
  /** Read an output that is shown in place, verified. @throws CapacityError when it is larger than `maxBytes` (16 MiB). */
  read(fid: string, name: string, options?: { maxBytes?: number; signal?: AbortSignal }): Promise<Bytes>
  /** Send a file for inputs; its `done` is the id that stands for it in inputs. Starts by itself. */
  upload(file: Blob, name: string, options?: { signal?: AbortSignal }): UploadHandle
  /** End the session; the next call dials anew. */
  close(): void
}

/** Who this browser is to a node or a registry. Tokens are kept for that place alone. */
export interface Logins {
  /** A node's peer id, or a registry's URL. */
  readonly place: string
  /** `provider, login, message …` of `auth.info`. */
  info(): Promise<Row>
  /** Show a token (of `auth.password`, an issuer …) and keep it. Returns the answer of `auth.whoami`. */
  token(token: string): Promise<Row>
  password(name: string, password: string): Promise<Row>
  /** Enrol this browser by the code that the node's operator made for its peer id. */
  code(code: string): Promise<Row>
  /** Show a token of an issuer, and renew it by itself as long as the issuer does. */
  issued(terms: Terms, tokens: Tokens): Promise<Row>
  whoami(): Promise<Row>
  logout(): Promise<void>
}

/** Who asks an issuer for the page: its server. */
export interface IssuerRelay {
  /** The one issuer that it asks; undefined: every one. */
  readonly only?: string
  /** `authorization_endpoint, token_endpoint, binding`: how it binds tokens to keys, empty where it cannot. */
  about(issuer: string): Promise<Row>
  /** Post a form to its token endpoint: `status, body, nonce`. */
  token(issuer: string, form: Record<string, string>, proof: string | undefined): Promise<Row>
}

/** Tokens of issuers: by way of their own page, and back. */
export interface IssuerLogin {
  /** Whether this page can ask that issuer. */
  isPossible(issuer: string): boolean
  /** Remember in this tab what is asked for; returns the URL where the person logs in. */
  begin(place: string, terms: Terms): Promise<string>
  /** Return what this tab had begun, once. */
  taken(): Begun | undefined
  /** Trade what the issuer sent the browser back with (`?code=…`). @throws UsageError: it was denied, or nobody asked for it. */
  finish(search: string, begun: Begun | undefined): Promise<Tokens>
}

export interface FollowOptions {
  /** The last `seq` that is known already. Default: 0. */
  after?: number
  /** Wait for what comes; false gives what there is. Default: true. */
  live?: boolean
  /** Most events that `events` keeps; the oldest go first. Default: 200,000. */
  keep?: number
}

export type FollowStatus =
  | 'connecting'
  | 'following'
  /** The node was lost and is dialled again; what was seen stays. */
  | 'away'
  /** The run is over, and all its events are here. */
  | 'over'
  /** It is refused or was stopped; `error` says why. */
  | 'failed'

export type FollowNews =
  /** Some events were applied to `view` and appended to `events`. Comes about 60 times a second at most. */
  { type: 'events'; events: readonly RunEvent[] } | { type: 'status'; status: FollowStatus }

/** A run that is followed: its view grows in place. */
export interface FollowedRun extends Listenable<FollowNews> {
  readonly node: NodeClient
  readonly fid: string
  /** What the events add up to. The same object always; `view.lastSeq` changes with it. */
  readonly view: RunView
  /** The latest events, in order. The same array always. */
  readonly events: readonly RunEvent[]
  /** How many events are not in `events` any more. */
  readonly dropped: number
  readonly status: FollowStatus
  readonly error: Error | undefined
  /** Wait for the end of the run, or of following it. @throws what `error` says. */
  done(): Promise<RunView>
  stop(): void
}

export type SinkKind =
  /** A file that the person chooses (`showSaveFilePicker`); needs a click. */
  | 'picker'
  /** The browser's own private disk: resumable; handed over as a download when whole. */
  | 'opfs'
  /** Streamed through the service worker into the browser's downloads. */
  | 'stream'
  /** In memory, for less than 64 MB. */
  | 'blob'

export interface DownloadOptions {
  /** Default: the best of `capabilities().sinks` for its size; never `picker`, which needs a `handle`. */
  sink?: SinkKind
  /** A file handle of `showSaveFilePicker`, for the sink `picker`. */
  handle?: FileSystemFileHandle
  /** The name that is suggested for the file. Default: the output's, without folders, as `core/names` stores it. */
  saveAs?: string
  signal?: AbortSignal
}

export type TransferStatus = 'running' | 'away' | 'done' | 'failed' | 'cancelled'

export interface TransferNews {
  status: TransferStatus
  /** Bytes that are verified (of an upload: that the node has). */
  bytes: number
}

export interface DownloadHandle extends Listenable<TransferNews> {
  readonly name: string
  readonly status: TransferStatus
  /** Undefined until the manifest is here. */
  readonly size: number | undefined
  readonly bytes: number
  /** @throws IntegrityError when a chunk is not what the manifest says, twice. */
  readonly done: Promise<DownloadResult>
  cancel(): void
}

export interface DownloadResult {
  name: string
  /** What the file is called on the disk: not each name can be stored there. */
  file: string
  size: number
  /** Hex, as the node says it; of what was verified chunk by chunk. Empty for a zip. */
  sha256: string
  sink: SinkKind
}

export interface UploadHandle extends Listenable<TransferNews> {
  readonly name: string
  readonly size: number
  readonly status: TransferStatus
  readonly bytes: number
  /** The upload's id, for inputs. */
  readonly done: Promise<string>
  cancel(): void
}

export interface LinkedRun {
  /** Of an invitation: its calls are about the runs that were launched by it. */
  readonly node: NodeClient
  readonly link: Link
  /** The run, or the sid of the invitation. */
  readonly fid: string
  /** The answer of `share.open`: `fid, sid, node, level, mode, expires_at`. */
  readonly told: Row
  /** What an invitation says: `path, name, description, schema, inputs, note, launches, launched, see, state, by`. */
  readonly invitation: Row | undefined
}

/** This browser's Ed25519 key: made at first use, kept in IndexedDB, never readable by the page. */
export interface IdentityStore {
  /** Return the peer id; makes the key at first use. */
  peerId(): Promise<string>
  /** Whether `backup` has something: a key that was made to be moved, or was imported. */
  movable(): Promise<boolean>
  /** Make a new identity that can be moved, sealed by a password; returns the backup's text. The old one is gone. */
  createMovable(password: string): Promise<string>
  /** Return the sealed backup, to save as a file. @throws UsageError where the key cannot be moved. */
  backup(): Promise<string>
  /** Use the identity of a backup; returns its peer id. Open sessions end. @throws UsageError: wrong password, or no backup. */
  restore(backup: string, password: string): Promise<string>
  /**
   * `locked`: until `unlock`, whatever needs the key is a `LockedError`. `unlocked`: it was opened by its password, for
   * this page's life. `open`: it wants no password.
   */
  lockState(): Promise<LockState>
  /** Keep nothing of the key but the sealed backup, in every tab. @throws UsageError: wrong password, or it cannot be moved. */
  lock(password: string): Promise<void>
  /** Forget an unlocked key in every tab, until its password is given again. */
  lockNow(): void
  /** Open the key for this page's life. @throws UsageError: wrong password. */
  unlock(password: string): Promise<void>
  /** Keep the key again so that it wants no password. @throws UsageError: wrong password. */
  removeLock(password: string): Promise<void>
  /** Forget the identity, with its logins, for good; the next use makes another one. */
  forget(): Promise<void>
  /** Be told when another tab, or this one, locks or changes the identity. */
  onChange(listener: () => void): () => void
}

export type LockState = 'open' | 'locked' | 'unlocked'

export interface Pin {
  name: string
  peerId: string
  since: number
}

/** Names of nodes and the peer ids that proved them first. */
export interface Pins {
  get(name: string): Promise<string | undefined>
  list(): Promise<Pin[]>
  remove(name: string): Promise<void>
}

/** On which node a run is. */
export interface KnownRuns {
  get(fid: string): Promise<NodeTarget | undefined>
  remember(fid: string, target: NodeTarget): Promise<void>
  forget(fid: string): Promise<void>
}

export interface RegistryQuery {
  search?: string
  query?: string
  by?: string
  p?: number
  pp?: number
}

export interface Page {
  total: number
  filtered: number
  pages: number
  rows: Row[]
}

/** One registry's reads. What it says are claims: a node's peer id is proved by its session only. */
export interface RegistryClient {
  readonly url: string
  /** Where only users read: who this browser is there. Reads are signed once the registry asked for it. */
  readonly logins: Logins
  state(options?: { signal?: AbortSignal }): Promise<Row>
  nodes(query?: RegistryQuery, options?: { signal?: AbortSignal }): Promise<Page>
  flows(query?: RegistryQuery, options?: { signal?: AbortSignal }): Promise<Page>
  /** The addresses that a node's record says; none when it is not known. */
  addresses(peerId: string, options?: { signal?: AbortSignal }): Promise<string[]>
}

/** Who has users: a node, or a registry. */
export interface AccountDesk {
  /** Make a call whose answer is a map. */
  ask(op: string, args?: { readonly [key: string]: Sendable }): Promise<Row>
  /** The rows of a paged op, page after page. */
  pages(op: string, args?: { readonly [key: string]: Sendable }): AsyncIterable<Row>
}

/** An operator's calls at one registry. @throws CallError as the registry refuses, `operator-only` for who is none. */
export interface RegistryOperator extends AccountDesk {
  readonly url: string
  /** Make a signed call: an HTTP method, path with query, and what is sent as JSON. */
  call(method: string, target: string, body?: { readonly [key: string]: Sendable }): Promise<Row>
  /** Become an operator by a code, which is never sent. */
  enrol(code: string): Promise<Row>
}
