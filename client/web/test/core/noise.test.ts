import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ed25519, x25519 } from '@noble/curves/ed25519.js'
import { fromHex, hex } from '../../src/core/bytes.ts'
import { PeerError } from '../../src/core/errors.ts'
import { type KeyPair, type NoiseCrypto, type Signer, prologueOf, respond } from '../../src/core/noise.ts'
import { peerIdOf } from '../../src/core/peerid.ts'
import type { Bytes } from '../../src/core/value.ts'
import { noiseCrypto } from '../../src/net/crypto.ts'
import { vectors } from '../vectors.ts'

interface Side {
  identity_seed: string
  static_private: string
  ephemeral_private: string
  peer_id: string
}
const vector = vectors<{ prologue: string; initiator: Side; responder: Side; messages: [string, string, string] }>('noise')

const pairOf = (secret: string): KeyPair => ({
  publicKey: x25519.getPublicKey(fromHex(secret)),
  dh: theirs => Promise.resolve(x25519.getSharedSecret(fromHex(secret), theirs) as Bytes)
})

const me: Signer = {
  publicKey: ed25519.getPublicKey(fromHex(vector.responder.identity_seed)),
  sign: message => Promise.resolve(ed25519.sign(message, fromHex(vector.responder.identity_seed)) as Bytes)
}

/** Keys as the vector has them; all else as the page has it in Node.js, which has WebCrypto. */
function fixed(): NoiseCrypto {
  const keys = [pairOf(vector.responder.ephemeral_private), pairOf(vector.responder.static_private)]
  return { ...noiseCrypto, keyPair: () => Promise.resolve(keys.shift()!) }
}

async function transcript(messages: readonly string[], prologue = fromHex(vector.prologue)) {
  const [incoming, written]: [string[], string[]] = [[messages[0]!, messages[2]!], []]
  const read = () => Promise.resolve(fromHex(incoming.shift()!))
  const key = await respond(fixed(), me, prologue, read, message => written.push(hex(message)))
  return { peer: peerIdOf(key), written }
}

test('the handshake agrees with js-libp2p byte for byte', async () => {
  const { peer, written } = await transcript(vector.messages)
  assert.equal(peer, vector.initiator.peer_id)
  assert.deepEqual(written, [vector.messages[1]])
})

test('a handshake of another connection, or changed anywhere, proves nothing', async () => {
  await assert.rejects(transcript(vector.messages, prologueOf(new Uint8Array(32), new Uint8Array(32))), PeerError)
  const last = vector.messages[2]
  for (let at = 0; at < last.length; at += 34) {
    const changed = last.slice(0, at) + ((parseInt(last[at]!, 16) + 1) % 16).toString(16) + last.slice(at + 1)
    await assert.rejects(transcript([vector.messages[0], '', changed]), PeerError)
  }
  for (const cut of ['', last.slice(0, 60), last.slice(0, 160), last.slice(0, -2)])
    await assert.rejects(transcript([vector.messages[0], '', cut]), PeerError)
})

test('a key that everybody shares is refused', async () => {
  const zero = '00'.repeat(32)
  await assert.rejects(transcript([zero, '', vector.messages[2]]))
})

test('the prologue has the dialer first', () => {
  const prologue = prologueOf(new Uint8Array(32).fill(1), new Uint8Array(32).fill(2))
  const head = Buffer.from('libp2p-webrtc-noise:').toString('hex')
  assert.equal(hex(prologue), `${head}1220${'01'.repeat(32)}1220${'02'.repeat(32)}`)
})

test('WebCrypto and the library make the same of a key', async () => {
  const [a, b] = await Promise.all([noiseCrypto.keyPair(), noiseCrypto.keyPair()])
  assert.equal(hex(await a.dh(b.publicKey)), hex(await b.dh(a.publicKey)))
  const library = pairOf(vector.initiator.static_private)
  assert.equal(hex(await a.dh(library.publicKey)), hex(await library.dh(a.publicKey)))
})
