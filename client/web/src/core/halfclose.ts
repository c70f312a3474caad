/**
 * How one stream ends: each way on its own (libp2p/specs, webrtc). The same tables as `kodo.p2p.core.halfclose`, whose
 * docstring has the theory.
 */
import { PeerError, UsageError } from './errors.ts'
import { FIN, FIN_ACK, type Flag, RESET, STOP_SENDING } from './framing.ts'

export type WriteState = 'open' | 'stopped' | 'finSent' | 'closed' | 'reset'
export type ReadState = 'open' | 'stopped' | 'closed' | 'reset'
export type StreamStep =
  | 'localCloseWrite'
  | 'localCloseRead'
  | 'localReset'
  | 'remoteData'
  | 'remoteFin'
  | 'remoteStopSending'
  | 'remoteReset'
  | 'remoteFinAck'
  | 'channelClosed'

/** What may happen in each state, and the state after it. A step that is in no row does not concern that way. */
export const WRITE_TABLE: Record<WriteState, Partial<Record<StreamStep, WriteState>>> = {
  open: { localCloseWrite: 'finSent', localReset: 'reset', remoteStopSending: 'stopped', remoteReset: 'reset', channelClosed: 'reset' },
  stopped: { localCloseWrite: 'finSent', localReset: 'reset', remoteStopSending: 'stopped', remoteReset: 'reset', channelClosed: 'reset' },
  finSent: { localReset: 'reset', remoteStopSending: 'finSent', remoteReset: 'reset', remoteFinAck: 'closed', channelClosed: 'closed' },
  closed: { localReset: 'closed', remoteStopSending: 'closed', remoteReset: 'closed', channelClosed: 'closed' },
  reset: { localReset: 'reset', remoteStopSending: 'reset', remoteReset: 'reset', remoteFinAck: 'reset', channelClosed: 'reset' }
}

export const READ_TABLE: Record<ReadState, Partial<Record<StreamStep, ReadState>>> = {
  open: { localCloseRead: 'stopped', localReset: 'reset', remoteData: 'open', remoteFin: 'closed', remoteReset: 'reset', channelClosed: 'reset' },
  stopped: { localReset: 'reset', remoteData: 'stopped', remoteFin: 'closed', remoteReset: 'reset', channelClosed: 'closed' },
  closed: { localReset: 'closed', remoteReset: 'closed', channelClosed: 'closed' },
  reset: { localReset: 'reset', remoteData: 'reset', remoteFin: 'reset', remoteReset: 'reset', channelClosed: 'reset' }
}

const concerns = (table: Record<string, object>): ReadonlySet<string> => new Set(Object.values(table).flatMap(row => Object.keys(row)))
const WRITE_STEPS = concerns(WRITE_TABLE)
const READ_STEPS = concerns(READ_TABLE)
const ANSWERS: Partial<Record<StreamStep, Flag>> = { localCloseWrite: FIN, localCloseRead: STOP_SENDING, localReset: RESET, remoteFin: FIN_ACK }
const OF_FLAG: Record<Flag, StreamStep> = { [FIN]: 'remoteFin', [STOP_SENDING]: 'remoteStopSending', [RESET]: 'remoteReset', [FIN_ACK]: 'remoteFinAck' }

/** Return the step of a flag that arrived. */
export const stepOf = (flag: Flag): StreamStep => OF_FLAG[flag]

/** Where both ways of one stream stand. */
export class HalfClose {
  write: WriteState = 'open'
  read: ReadState = 'open'

  /** Whether both ways have ended: the data channel may be closed. */
  get done(): boolean {
    return (this.write === 'closed' || this.write === 'reset') && (this.read === 'closed' || this.read === 'reset')
  }

  /**
   * Let a step happen; return the flag that is to be sent because of it, if any.
   * @throws UsageError: a local step is not possible now. PeerError: the other side may not do that now. Nothing has changed.
   */
  on(step: StreamStep): Flag | undefined {
    const write = WRITE_STEPS.has(step) ? WRITE_TABLE[this.write][step] : this.write
    const read = READ_STEPS.has(step) ? READ_TABLE[this.read][step] : this.read
    if (write === undefined || read === undefined) {
      const message = `${step} is not possible on a stream with write side ${this.write}, read side ${this.read}`
      throw step.startsWith('local') ? new UsageError(message) : new PeerError(message)
    }
    // Nobody waits for a flag about a stream that was given up or has ended.
    const silent = this.read === 'reset' || this.done
    this.write = write
    this.read = read
    return silent ? undefined : ANSWERS[step]
  }
}
