import assert from 'node:assert/strict'
import { test } from 'node:test'
import { hex } from '../../src/core/bytes.ts'
import { UsageError } from '../../src/core/errors.ts'
import { decodeToken, parseLink } from '../../src/core/link.ts'
import { vectors } from '../vectors.ts'

interface Vector {
  token: string
  link: string
  peer_id: string
  fid: string
  secret: string
  addresses: string[]
  registry: string | null
}
const { valid, refused } = vectors<{ valid: Vector[]; refused: { why: string; token: string }[] }>('link')

test('links are read as the vectors say', () => {
  for (const vector of valid) {
    const link = decodeToken(vector.token)
    assert.deepEqual(
      [link.peerId, link.fid, hex(link.secret), link.addrs, link.registry ?? null],
      [vector.peer_id, vector.fid, vector.secret, vector.addresses, vector.registry]
    )
    assert.deepEqual(parseLink(` ${vector.link}\n`), link)
    assert.deepEqual(parseLink(vector.token), link)
    assert.deepEqual(parseLink(`https://example.com/#open=${vector.token}`), link)
  }
})

for (const { why, token } of refused)
  test(`a token is refused: ${why}`, () => {
    assert.throws(
      () => decodeToken(token),
      (error: unknown) => error instanceof UsageError && (token === '' || !error.message.includes(token))
    )
  })

test('what is no link is refused', () => {
  for (const text of ['', 'https://example.com/', 'https://example.com/#open=x', 'https://example.com/#got=x', 'ftp://x/#get=y', 'a/b', 'x'.repeat(5000)])
    assert.throws(() => parseLink(text), UsageError, text)
})
