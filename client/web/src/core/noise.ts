/**
 * The Noise handshake (Noise_XX_25519_ChaChaPoly_SHA256, libp2p's payloads) as its responder: a dialer of WebRTC Direct.
 *
 *     → e    ← e, ee, s, es    → s, se
 *
 * Both certificates are in the prologue, so whoever proves its key here is who holds the connection.
 */
import { chacha20poly1305 } from '@noble/ciphers/chacha.js'
import { hmac } from '@noble/hashes/hmac.js'
import { sha256 } from '@noble/hashes/sha2.js'
import { bytesField, concat, equal, fields, utf8 } from './bytes.ts'
import { PeerError } from './errors.ts'
import { KEY_HEAD, keyProtobuf } from './peerid.ts'
import type { Bytes } from './value.ts'

/** An X25519 key pair of one handshake. */
export interface KeyPair {
  publicKey: Bytes
  dh(theirs: Bytes): Promise<Bytes>
}

/** What differs between WebCrypto and a library. */
export interface NoiseCrypto {
  keyPair(): Promise<KeyPair>
  /** Return whether an Ed25519 signature is right. */
  verify(publicKey: Bytes, signature: Bytes, message: Bytes): Promise<boolean>
}

/** An Ed25519 key that signs. */
export interface Signer {
  publicKey: Bytes
  sign(message: Bytes): Promise<Bytes>
}

const NAME = utf8('Noise_XX_25519_ChaChaPoly_SHA256')
const SIGNED = utf8('noise-libp2p-static-key:')
const TAG_BYTES = 16
const KEY_BYTES = 32
/** Of one message, as a libp2p payload with extensions may have. */
export const MAX_NOISE_BYTES = 4096

/** Return the prologue of WebRTC Direct: both certificates' SHA-256, the dialer's first. */
export function prologueOf(dialer: Uint8Array, listener: Uint8Array): Bytes {
  const head = Uint8Array.of(0x12, 32)
  return concat(utf8('libp2p-webrtc-noise:'), head, dialer, head, listener)
}

/** The part that has nothing of libp2p: hash, chaining key, cipher. */
class Symmetric {
  #hash: Uint8Array = NAME
  #chain: Uint8Array = NAME
  #key: Uint8Array | undefined
  #nonce = 0

  mixHash(data: Uint8Array): void {
    this.#hash = sha256(concat(this.#hash, data))
  }

  mixKey(secret: Uint8Array): void {
    const temporary = hmac(sha256, this.#chain, secret)
    this.#chain = hmac(sha256, temporary, Uint8Array.of(1))
    this.#key = hmac(sha256, temporary, concat(this.#chain, Uint8Array.of(2)))
    this.#nonce = 0
  }

  #cipher() {
    const nonce = new Uint8Array(12)
    new DataView(nonce.buffer).setUint32(4, this.#nonce++, true)
    return chacha20poly1305(this.#key!, nonce, this.#hash)
  }

  seal(plain: Uint8Array): Bytes {
    const sealed = this.#key ? this.#cipher().encrypt(plain) : plain
    this.mixHash(sealed)
    return sealed as Bytes
  }

  open(sealed: Uint8Array): Bytes {
    let plain = sealed
    if (this.#key) {
      try {
        plain = this.#cipher().decrypt(sealed)
      } catch {
        throw new PeerError('the handshake is not of this connection')
      }
    }
    this.mixHash(sealed)
    return plain as Bytes
  }
}

/** Read the public key (32 bytes) and the signature of a handshake's payload. */
function readPayload(payload: Bytes): { key: Bytes; signature: Bytes } {
  let key: Uint8Array = new Uint8Array(0)
  let signature: Uint8Array = new Uint8Array(0)
  for (const [number, value] of fields(payload)) {
    if (typeof value === 'number') continue
    if (number === 1) key = value
    else if (number === 2) signature = value
  }
  if (key.length !== 36 || !equal(key.subarray(0, 4), KEY_HEAD)) throw new PeerError('the node has no Ed25519 key')
  return { key: key.slice(4), signature: signature.slice() }
}

/**
 * Do the handshake; return the public key (32 bytes) that the other side proved.
 * @throws PeerError: it proved nothing.
 */
export async function respond(
  crypto: NoiseCrypto,
  me: Signer,
  prologue: Uint8Array,
  read: () => Promise<Bytes>,
  write: (message: Bytes) => void
): Promise<Bytes> {
  const state = new Symmetric()
  state.mixHash(prologue)
  // What takes time and waits for nothing is begun before the first message is here.
  const keys = Promise.all([crypto.keyPair(), crypto.keyPair()]).then(async ([ephemeral, identity]) => {
    const signature = await me.sign(concat(SIGNED, identity.publicKey))
    return { ephemeral, identity, signature }
  })
  keys.catch(() => undefined)
  const first = await read()
  if (first.length < KEY_BYTES) throw new PeerError('the handshake is cut off')
  const theirEphemeral = first.slice(0, KEY_BYTES)
  state.mixHash(theirEphemeral)
  state.open(first.subarray(KEY_BYTES))

  const { ephemeral, identity, signature } = await keys
  const [ee, es] = await Promise.all([ephemeral.dh(theirEphemeral), identity.dh(theirEphemeral)])
  state.mixHash(ephemeral.publicKey)
  state.mixKey(ee)
  const sealedIdentity = state.seal(identity.publicKey)
  state.mixKey(es)
  const payload = concat(bytesField(1, keyProtobuf(me.publicKey)), bytesField(2, signature))
  write(concat(ephemeral.publicKey, sealedIdentity, state.seal(payload)))

  const third = await read()
  if (third.length < KEY_BYTES + 2 * TAG_BYTES) throw new PeerError('the handshake is cut off')
  const theirIdentity = state.open(third.subarray(0, KEY_BYTES + TAG_BYTES))
  state.mixKey(await ephemeral.dh(theirIdentity))
  const proof = readPayload(state.open(third.subarray(KEY_BYTES + TAG_BYTES)))
  if (!(await crypto.verify(proof.key, proof.signature, concat(SIGNED, theirIdentity)))) throw new PeerError('the node cannot prove its key')
  return proof.key
}
