import { ed25519 } from '@noble/curves/ed25519.js'
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fromHex, hex } from '../../src/core/bytes.ts'
import { authorization, enrolment } from '../../src/core/claim.ts'
import type { Bytes } from '../../src/core/value.ts'
import { vectors } from '../vectors.ts'

interface Claim {
  host: string
  method: string
  target: string
  body: string
  at: number
  authorization: string
}
const { seed, claims, enrolment: enrolled } = vectors<{
  seed: string
  claims: Claim[]
  enrolment: { code: string; registry: string; signed: string }
}>('claim')
const secret = fromHex(seed)
const signer = {
  publicKey: ed25519.getPublicKey(secret) as Bytes,
  sign: (message: Bytes) => Promise.resolve(ed25519.sign(message, secret) as Bytes)
}

test('requests are signed as the vectors say', async () => {
  for (const { authorization: header, body, ...request } of claims)
    assert.equal(await authorization({ ...request, body: fromHex(body) }, signer), header)
})

test('enrolments are signed as the vector says', async () => {
  assert.equal(hex(await enrolment(enrolled.code, enrolled.registry, signer)), enrolled.signed)
})
