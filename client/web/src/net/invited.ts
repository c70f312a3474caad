/** A node as the holder of an invitation deals with it: by the sessions that there are, each call with the invitation. */
import { CallError } from '../core/errors.ts'
import type { Path } from '../core/path.ts'
import type { Value } from '../core/value.ts'
import type { CallOptions, NodeNews, NodeStatus, Unsubscribe } from './api.ts'
import type { LoginKeeper } from './logins.ts'
import type { RemoteNode } from './node.ts'
import { NodeCalls } from './node_calls.ts'
import type { Args } from './node_sessions.ts'
import type { Session } from './session.ts'

/** What is asked for the session itself, not for runs of the invitation. */
const OF_SESSION = /^(auth\.|share\.open$)/

export class InvitedNode extends NodeCalls {
  readonly peerId: string
  readonly logins: LoginKeeper

  constructor(
    readonly base: RemoteNode,
    /** The invitation's id. */
    readonly sid: string
  ) {
    super()
    this.peerId = base.peerId
    this.logins = base.logins
  }

  get label(): string {
    return this.base.label
  }

  get status(): NodeStatus {
    return this.base.status
  }

  get path(): Path | undefined {
    return this.base.path
  }

  on(listener: (news: NodeNews) => void): Unsubscribe {
    return this.base.on(listener)
  }

  session(signal?: AbortSignal): Promise<Session> {
    return this.base.session(signal)
  }

  override about(op: string, args: Args): Args {
    return OF_SESSION.test(op) ? args : { ...args, invitation: this.sid }
  }

  /** Make a call. @throws CallError 410 `expired` or `revoked`, also where a new session could not open the invitation. */
  override async call(op: string, args: Args = {}, options: CallOptions = {}): Promise<Value> {
    try {
      return await super.call(op, args, options)
    } catch (error) {
      if (error instanceof CallError && error.reason === 'no-such-link') throw this.whyGone() ?? error
      throw error
    }
  }

  whyGone(): CallError | undefined {
    return this.base.whyGone(this.sid)
  }

  /** Others use the sessions, too. */
  close(): void {
    return undefined
  }
}
