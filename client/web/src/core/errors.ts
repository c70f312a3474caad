/**
 * What can go wrong, one tree as in Python's `kodo.p2p.errors`:
 *
 *     KodoError
 *      ├ UsageError          this program was asked for what cannot be
 *      │  └ LockedError      the key of this browser wants its password
 *      ├ PeerError           the other side broke the protocol
 *      ├ IdentityError       somebody else answers than was meant
 *      ├ NetworkError        the way broke, or nobody answers
 *      │  ├ UnreachableError
 *      │  └ BrokenError
 *      ├ DeadlineError       it took too long
 *      ├ IntegrityError      bytes are not those that were announced
 *      ├ CapacityError       a bound was reached
 *      └ CallError           the node refused: `code`, `reason`, `data`
 */
import type { Row } from './value.ts'

/** The root of all errors of this client. */
export class KodoError extends Error {
  override name = 'KodoError'
}

/** This program was asked for what cannot be. */
export class UsageError extends KodoError {
  override name = 'UsageError'
}

/** The key of this browser wants its password first. */
export class LockedError extends UsageError {
  override name = 'LockedError'
}

/** The other side broke the protocol. */
export class PeerError extends KodoError {
  override name = 'PeerError'
}

/** Somebody else answers than was meant. */
export class IdentityError extends KodoError {
  override name = 'IdentityError'
  constructor(
    message: string,
    /** The peer id that was meant. */
    readonly expected: string,
    /** The peer id that was found, where one is known. */
    readonly found?: string
  ) {
    super(message)
  }
}

/** The way to the node broke, or there is none. */
export class NetworkError extends KodoError {
  override name = 'NetworkError'
}

/** Nobody answers at any address. */
export class UnreachableError extends NetworkError {
  override name = 'UnreachableError'
}

/** A stream or session ended before it was done. */
export class BrokenError extends NetworkError {
  override name = 'BrokenError'
}

/** It took longer than was allowed. */
export class DeadlineError extends KodoError {
  override name = 'DeadlineError'
}

/** Bytes are not those that were announced. */
export class IntegrityError extends KodoError {
  override name = 'IntegrityError'
}

/** A bound was reached. */
export class CapacityError extends KodoError {
  override name = 'CapacityError'
}

/** The node refused a call. */
export class CallError extends KodoError {
  override name = 'CallError'
  constructor(
    /** An HTTP status number. */
    readonly code: number,
    /** A stable word, e.g. `no-such-run`. */
    readonly reason: string,
    message: string,
    /** What else the refusal says, e.g. `places` of `bad-inputs`. */
    readonly data: Row = {}
  ) {
    super(message || reason)
  }
}
