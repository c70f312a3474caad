/** Peer ids of Ed25519 keys (libp2p/specs, peer-ids): base58 of an identity multihash over the key's protobuf. */
import { base58, concat, equal, fromBase58 } from './bytes.ts'
import { PeerError } from './errors.ts'
import type { Bytes } from './value.ts'

/** `PublicKey { type: Ed25519, data: 32 bytes }`. */
export const KEY_HEAD = Uint8Array.of(8, 1, 18, 32)
const MULTIHASH_HEAD = Uint8Array.of(0, 36)

/** Return the protobuf of a public key (32 bytes). */
export const keyProtobuf = (publicKey: Uint8Array): Bytes => concat(KEY_HEAD, publicKey)

/** Return the binary peer id of a public key (32 bytes). */
export const peerIdBytes = (publicKey: Uint8Array): Bytes => concat(MULTIHASH_HEAD, KEY_HEAD, publicKey)

export const peerIdOf = (publicKey: Uint8Array): string => base58(peerIdBytes(publicKey))

/** Return the public key of a binary peer id. @throws PeerError: it is not the peer id of an Ed25519 key. */
export function keyOfPeerIdBytes(bytes: Uint8Array): Bytes {
  if (bytes.length !== 38 || !equal(bytes.subarray(0, 6), concat(MULTIHASH_HEAD, KEY_HEAD)))
    throw new PeerError('that is not the peer id of an Ed25519 key')
  return bytes.slice(6)
}

/** Check a peer id; return its binary form. @throws PeerError: it is not a peer id. */
export function parsePeerId(text: string): Bytes {
  const bytes = fromBase58(text)
  keyOfPeerIdBytes(bytes)
  return bytes
}
