/** The one engine of a page: `openEngine` puts everything together. */
import { UnreachableError } from '../core/errors.ts'
import type { Link } from '../core/link.ts'
import type { TurnOffer } from '../core/turn.ts'
import { fieldOf, isRow, textOf } from '../core/value.ts'
import { listOpfs, removeOpfs, sweepOpfs } from '../files/opfs.ts'
import { sinks } from '../files/sinks.ts'
import type { CallOptions, Capabilities, Engine, EngineOptions, LinkedRun, NodeTarget, UnfinishedDownload } from './api.ts'
import { Database } from './database.ts'
import { Identity } from './identity.ts'
import { InvitedNode } from './invited.ts'
import { type NodeContext, RemoteNode } from './node.ts'
import { IssuerLogin } from './oidc.ts'
import { SignedRegistry } from './operator.ts'
import { HttpRegistry } from './registry.ts'
import { PinStore, RunStore } from './remembered.ts'

class WebEngine implements Engine {
  readonly identity: Identity
  readonly pins: PinStore
  readonly knownRuns: RunStore
  readonly registries: readonly HttpRegistry[]
  readonly #operators = new Map<string, SignedRegistry>()
  readonly issuerLogin: IssuerLogin
  readonly #database: Database
  readonly #options: EngineOptions
  readonly #nodes = new Map<string, RemoteNode>()
  readonly #context: NodeContext

  constructor(options: EngineOptions) {
    this.#options = options
    this.#database = new Database(options.database ?? 'kodo')
    this.identity = new Identity(this.#database, () => {
      for (const node of this.#nodes.values()) node.close()
    })
    this.pins = new PinStore(this.#database)
    this.knownRuns = new RunStore(this.#database)
    this.issuerLogin = new IssuerLogin(this.identity, options.issuers)
    this.#context = {
      issuers: this.issuerLogin,
      identity: this.identity,
      pins: this.pins,
      database: this.#database,
      findAddresses: (peerId, signal) => this.#findAddresses(peerId, signal),
      findTurn: (peerId, signal) => this.#findTurn(peerId, signal)
    }
    this.registries = (options.registries ?? []).map(url => new HttpRegistry(this.operator(url)))
    void sweepOpfs(Date.now()).catch(() => undefined)
  }

  get forgetful(): boolean {
    return this.#database.volatile
  }

  /** Ask everywhere at once; a place that does not answer tells nothing. */
  async #findAddresses(peerId: string, signal: AbortSignal): Promise<string[]> {
    const asked = this.registries.map(registry => registry.addresses(peerId, { signal }))
    const told = await Promise.allSettled([...asked, this.#options.findAddresses?.(peerId, signal) ?? []])
    return told.flatMap(each => (each.status === 'fulfilled' ? [...each.value] : []))
  }

  #findTurn(peerId: string, signal: AbortSignal): Promise<TurnOffer>[] {
    const asked = this.registries.map(async registry => {
      const [turn, addrs] = await Promise.all([registry.turn(), registry.addresses(peerId, { signal })])
      return { turn, addrs }
    })
    return [...asked, ...(this.#options.findTurn?.(peerId, signal) ?? [])]
  }

  node(target: NodeTarget): RemoteNode {
    let node = this.#nodes.get(target.peerId)
    if (!node) {
      node = new RemoteNode(target.peerId, this.#context)
      this.#nodes.set(target.peerId, node)
    }
    node.learn(target)
    return node
  }

  operator(url: string): SignedRegistry {
    let found = this.#operators.get(url)
    if (!found) {
      found = new SignedRegistry(url, this.#context)
      this.#operators.set(url, found)
    }
    return found
  }

  nodes(): readonly RemoteNode[] {
    return [...this.#nodes.values()]
  }

  async openLink(link: Link, options: CallOptions = {}): Promise<LinkedRun> {
    const node = this.node({ peerId: link.peerId, addrs: link.addrs })
    try {
      const told = await node.openLink(link.fid, link.secret, options)
      const said = fieldOf(told, 'node')
      if (said !== undefined && isRow(said) && textOf(said, 'name') !== '') node.learn({ peerId: link.peerId, addrs: [], label: textOf(said, 'name') })
      const invitation = fieldOf(told, 'invitation')
      if (invitation !== undefined && isRow(invitation)) return { node: new InvitedNode(node, link.fid), link, fid: link.fid, told, invitation }
      await this.knownRuns.remember(link.fid, node.target)
      return { node, link, fid: link.fid, told, invitation: undefined }
    } catch (error) {
      if (!(error instanceof UnreachableError) || link.registry === undefined) throw error
      throw new UnreachableError(`${error.message} The link says that a registry may know where it is now: ${link.registry}`)
    }
  }

  async capabilities(): Promise<Capabilities> {
    let localNetwork: Capabilities['localNetwork'] = 'unknown'
    try {
      const { state } = await navigator.permissions.query({ name: 'local-network-access' as PermissionName })
      localNetwork = state
    } catch {
      localNetwork = 'unknown'
    }
    return {
      webrtc: typeof RTCPeerConnection !== 'undefined',
      secure: isSecureContext,
      loopback: !/\bGecko\/\d/.test(navigator.userAgent),
      localNetwork,
      sinks: sinks()
    }
  }

  async unfinished(): Promise<UnfinishedDownload[]> {
    const found = await listOpfs()
    return found
      .filter(each => !each.finished && each.about['fid'] !== undefined)
      .map(({ key, about, at }) => ({ key, at, peerId: about['peerId'] ?? '', fid: about['fid'] ?? '', name: about['name'] ?? '', size: Number(about['size']) }))
  }

  discard(key: string): Promise<void> {
    return removeOpfs(key)
  }

  close(): void {
    for (const node of this.#nodes.values()) node.close()
    this.#database.close()
    this.identity.close()
  }
}

/** Open the engine of this page. Nothing is dialled or asked before a page wants something. */
export function openEngine(options: EngineOptions = {}): Engine {
  return new WebEngine(options)
}
