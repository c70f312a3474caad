// Makes the golden vectors from js-libp2p: node generate.mjs NODE_MODULES
//
// NODE_MODULES is a folder that holds libp2p, @libp2p/webrtc and @chainsafe/libp2p-noise (npm's own layout).
// Everything in it is deterministic: a second run must change nothing but what an upgrade changed.
import fs from 'node:fs'
import path from 'node:path'
import { pathToFileURL } from 'node:url'

const modules = path.resolve(process.argv[2])
const inside = file => import(pathToFileURL(path.join(modules, file)).href)

const { privateKeyFromProtobuf, publicKeyToProtobuf, generateKeyPairFromSeed } = await inside('@libp2p/crypto/dist/src/keys/index.js')
const { peerIdFromPrivateKey } = await inside('@libp2p/peer-id/dist/src/index.js')
const { multiaddr } = await inside('@multiformats/multiaddr/dist/src/index.js')
const lp = await inside('it-length-prefixed/dist/src/index.js')
const varint = await inside('uint8-varint/dist/src/index.js')
const { base58btc } = await inside('multiformats/dist/src/bases/base58.js')
const { base64url } = await inside('multiformats/dist/src/bases/base64.js')
const { Message } = await inside('@libp2p/webrtc/dist/src/private-to-public/pb/message.js')
const { XXHandshakeState, ZEROLEN } = await inside('@libp2p/noise/dist/src/protocol.js')
const { defaultCrypto } = await inside('@libp2p/noise/dist/src/crypto/index.js')
const { wrapCrypto } = await inside('@libp2p/noise/dist/src/crypto.js')
const { createHandshakePayload } = await inside('@libp2p/noise/dist/src/utils.js')
const { Uint8ArrayList } = await inside('uint8arraylist/dist/src/index.js')

const hex = b => Buffer.from(b.subarray ? b.subarray() : b).toString('hex')
const from = h => Uint8Array.from(Buffer.from(h, 'hex'))
const seedOf = n => Uint8Array.from({length: 32}, (_, i) => (i * 7 + n * 31 + 1) & 255)
const out = {}
const spec = privateKeyFromProtobuf(from('080112407e0830617c4a7de83925dfb2694556b12936c477a0e1feb2e148ec9da60fee7d1ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e'))
const seeds = [spec.raw.subarray(0, 32), new Uint8Array(32), new Uint8Array(32).fill(255), seedOf(1), seedOf(2)]
const identities = []
const message = new TextEncoder().encode('kodo golden vector')
for (const seed of seeds) {
  const key = await generateKeyPairFromSeed('Ed25519', seed)
  const id = peerIdFromPrivateKey(key)
  identities.push({ seed: hex(seed), public_key: hex(key.publicKey.raw), protobuf: hex(publicKeyToProtobuf(key.publicKey)),
    multihash: hex(id.toMultihash().bytes), peer_id: id.toString(), message: hex(message), signature: hex(await key.sign(message)) })
}
out.identity = { source: '@libp2p/crypto, @libp2p/peer-id; the first is the test vector of libp2p/specs, peer-ids', valid: identities }
out.varint = { source: 'uint8-varint', valid: [0,1,127,128,255,300,16383,16384,65535,2**21-1,2**21,2**28,2**32,2**35,2**42,2**49,Number.MAX_SAFE_INTEGER].map(n => ({ value: n, bytes: hex(varint.encode(n)) })) }
const samples = ['', '00', '0000', '00ff', '61', '626262', '00000000000000000000', '572e4794', 'ffffffffffffffff', hex(seedOf(3)), hex(seedOf(4)) + '01', 'fbff', '3e3f']
out.multibase = { source: 'multiformats', valid: samples.map(s => ({ bytes: s, base58: base58btc.baseEncode(from(s)), base64url: base64url.encode(from(s)) })) }
const cert = Buffer.concat([Buffer.from([0x12, 0x20]), Buffer.from(seedOf(9))])
const h = base64url.encode(cert)
out.multiaddr = { source: '@multiformats/multiaddr', valid: [
  ['ip4','192.0.2.7',4711,null],['ip4','192.0.2.7',4711,identities[0].peer_id],['ip4','0.0.0.0',1,null],['ip6','2001:db8::1',65535,identities[3].peer_id],['ip6','::1',256,null],
  ['dns4','node.example.org',4711,identities[4].peer_id],['dns4','localhost',80,null]].map(([f,host,port,p]) => {
  const text = `/${f}/${host}/udp/${port}/webrtc-direct/certhash/${h}` + (p ? `/p2p/${p}` : '')
  const ma = multiaddr(text)
  return { text: ma.toString(), bytes: hex(ma.bytes), family: f, host, port, certhash: hex(seedOf(9)), peer_id: p }
}) }
const framing = []
// The payload is the bytes i & 255, so a long one need not be written down: its frame's hash stands for it.
for (const [flag, size] of [[null, 0], [null, 1], [null, 127], [null, 128], [null, 16377], ['FIN', 0], ['STOP_SENDING', 0], ['RESET', 0], ['FIN_ACK', 0], ['FIN', 5]]) {
  const m = {}
  if (flag) m.flag = Message.Flag[flag]
  if (size) m.message = Uint8Array.from({ length: size }, (_, i) => i & 255)
  const frame = lp.encode.single(Message.encode(m)).subarray()
  framing.push({ flag, payload_length: size, bytes: size > 256 ? null : hex(frame), sha256: hex(new Uint8Array(await crypto.subtle.digest('SHA-256', frame))) })
}
out.framing = { source: '@libp2p/webrtc, it-length-prefixed', valid: framing }
const tok = s => lp.encode.single(new TextEncoder().encode(s + '\n'))
const protos = ['/ipfs/id/1.0.0', '/kodo/call/1']
const ls = lp.encode.single(new Uint8ArrayList(...protos.map(tok), new TextEncoder().encode('\n')))
out.negotiate = { source: '@libp2p/multistream-select, it-length-prefixed', tokens: ['/multistream/1.0.0','/kodo/call/1','/ipfs/ping/1.0.0','na','ls'].map(t => ({ text: t, bytes: hex(tok(t)) })), ls: { protocols: protos, bytes: hex(ls) } }
// Noise
const c = wrapCrypto(defaultCrypto)
const pair = seed => { const k = defaultCrypto.generateX25519KeyPairFromSeed(seed); return k }
const fixed = seed => ({ ...c, generateKeypair: () => pair(seed), dh: c.dh, hash: c.hash, hkdf: c.hkdf, encrypt: c.encrypt, decrypt: c.decrypt })
const prologue = Buffer.concat([Buffer.from('libp2p-webrtc-noise:'), cert, cert])
const iIdent = await generateKeyPairFromSeed('Ed25519', seeds[3]); const rIdent = await generateKeyPairFromSeed('Ed25519', seeds[4])
const iS = seedOf(11), iE = seedOf(12), rS = seedOf(13), rE = seedOf(14)
const I = new XXHandshakeState({ crypto: fixed(iE), protocolName: 'Noise_XX_25519_ChaChaPoly_SHA256', initiator: true, prologue, s: pair(iS) })
const R = new XXHandshakeState({ crypto: fixed(rE), protocolName: 'Noise_XX_25519_ChaChaPoly_SHA256', initiator: false, prologue, s: pair(rS) })
const list = x => x instanceof Uint8ArrayList ? x : new Uint8ArrayList(x)
const A = list(I.writeMessageA(ZEROLEN)); R.readMessageA(list(A.slice()))
const rp = await createHandshakePayload(rIdent, R.s.publicKey); const B = list(R.writeMessageB(rp)); const gotB = I.readMessageB(list(B.slice()))
const ip = await createHandshakePayload(iIdent, I.s.publicKey); const C = list(I.writeMessageC(ip)); R.readMessageC(list(C.slice()))
const extended = await createHandshakePayload(iIdent, I.s.publicKey, { streamMuxers: ['/yamux/1.0.0'] })
const [k1, k2] = I.ss.split()
out.noise = { source: '@libp2p/noise, with fixed keys', prologue: hex(prologue), initiator: { identity_seed: hex(seeds[3]), static_private: hex(iS), ephemeral_private: hex(iE), peer_id: identities[3].peer_id },
  responder: { identity_seed: hex(seeds[4]), static_private: hex(rS), ephemeral_private: hex(rE), peer_id: identities[4].peer_id },
  messages: [hex(A), hex(B), hex(C)], initiator_payload: hex(ip), responder_payload: hex(rp), initiator_payload_with_extensions: hex(extended), initiator_static_public: hex(I.s.publicKey), handshake_hash: hex(I.ss.h), keys: [hex(k1.k), hex(k2.k)] }
for (const [k, v] of Object.entries(out)) fs.writeFileSync(new URL(`${k}.json`, import.meta.url), JSON.stringify(v, null, 2) + '\n')
