/**
 * What a person signs for a registry, as `kodo.registry.records.claims` reads it: one request, or an enrolment.
 *
 * Canonical msgpack: keys in ascending order, the shortest form of every number. A claim is good for one request, once.
 */
import { hmac } from '@noble/hashes/hmac.js'
import { sha256 } from '@noble/hashes/sha2.js'
import { base64url, concat, utf8 } from './bytes.ts'
import { encode } from './msgpack.ts'
import type { Signer } from './noise.ts'
import { peerIdOf } from './peerid.ts'
import type { Bytes } from './value.ts'

const CLAIM = utf8('kodo/registry/claim/1\n')
const ENROLMENT = utf8('kodo/registry/enrolment/1\n')

/** A request as its sender means it. */
export interface Request {
  /** Name and port of the registry as it is dialled, without a port that goes without saying. */
  host: string
  method: string
  /** Path and query as sent. */
  target: string
  body: Uint8Array
  /** ms UTC, strictly rising. */
  at: number
}

async function signed(domain: Bytes, payload: Bytes, signer: Signer): Promise<Bytes> {
  return encode({ payload, signature: await signer.sign(concat(domain, payload)) })
}

/** Return the value of the header `Authorization` for one request. */
export async function authorization(request: Request, signer: Signer): Promise<string> {
  const payload = encode({
    at: request.at,
    body_sha256: sha256(request.body),
    host: request.host.toLowerCase(),
    method: request.method,
    peer_id: peerIdOf(signer.publicKey),
    target: request.target,
    v: 1
  })
  return `Kodo ${base64url(await signed(CLAIM, payload, signer))}`
}

/** Return the signed enrolment (bytes) of somebody who was told a registry's code. The code itself is never sent. */
export function enrolment(code: string, registry: string, signer: Signer): Promise<Bytes> {
  const me = peerIdOf(signer.publicKey)
  const plain = code.replace(/[\s-]/g, '').toLowerCase()
  const proof = hmac(sha256, utf8(plain), utf8(`kodo/registry/enrol/1\n${registry}\n${me}`))
  return signed(ENROLMENT, encode({ peer_id: me, proof, v: 1 }), signer)
}
