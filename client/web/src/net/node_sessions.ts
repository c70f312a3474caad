/** What transfers and the following of runs need of a node: calls, and sessions of their own to read from. */
import type { CallError } from '../core/errors.ts'
import type { Sendable } from '../core/value.ts'
import type { NodeClient } from './api.ts'
import type { LoginKeeper } from './logins.ts'
import type { Session } from './session.ts'

export type Args = { readonly [key: string]: Sendable }

export interface NodeSessions extends Pick<NodeClient, 'peerId' | 'label' | 'status' | 'call' | 'ask'> {
  readonly logins: LoginKeeper
  /** Return the session that lives, or dial. */
  session(signal?: AbortSignal): Promise<Session>
  /** Return what a call is made with. */
  about(op: string, args: Args): Args
  /** Return why a run that came by a link is not seen any more, where that is why. */
  whyGone(fid: string): CallError | undefined
}
