import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fromHex, hex } from '../../src/core/bytes.ts'
import { PeerError } from '../../src/core/errors.ts'
import { formatMultiaddr, isLocal, multiaddrBytes, parseMultiaddr, readMultiaddr } from '../../src/core/multiaddr.ts'
import { vectors } from '../vectors.ts'

interface Vector {
  text: string
  bytes: string
  family: string
  host: string
  port: number
  certhash: string
  peer_id: string | null
}
const { valid } = vectors<{ valid: Vector[] }>('multiaddr')
const HASH = 'uEiAYHyYtNDtCSVBXXmVsc3qBiI-WnaSrsrnAx87V3OPq8Q'

test('addresses are read and written as the vectors say', () => {
  for (const vector of valid) {
    const address = parseMultiaddr(vector.text)
    assert.deepEqual(
      [address.family, address.host, address.port, hex(address.certhash), address.peerId ?? null],
      [vector.family, vector.host, vector.port, vector.certhash, vector.peer_id]
    )
    assert.equal(formatMultiaddr(address), vector.text)
    assert.equal(hex(multiaddrBytes(address)), vector.bytes)
    assert.deepEqual(readMultiaddr(fromHex(vector.bytes)), address)
  }
})

test('a binary address that is cut off anywhere is refused', () => {
  for (const vector of valid) {
    const bytes = fromHex(vector.bytes)
    const whole = vector.peer_id === null ? bytes.length : bytes.length - 41
    for (let length = 0; length < bytes.length; length++)
      if (length !== whole) assert.throws(() => readMultiaddr(bytes.subarray(0, length)), PeerError)
  }
})

test('hosts have one form', () => {
  const host = (text: string) => parseMultiaddr(`/${text}/udp/1/webrtc-direct/certhash/${HASH}`).host
  assert.equal(host('ip6/2001:DB8:0:0:1:0:0:0'), '2001:db8:0:0:1::')
  assert.equal(host('ip6/0:0:0:0:0:0:0:1'), '::1')
  assert.equal(host('ip6/::ffff:192.0.2.1'), '::ffff:c000:201')
  assert.equal(host('dns4/Node.Example'), 'node.example')
})

test('what is not an address of the one shape is refused', () => {
  const wrong = [
    '', '/', 'x', `/ip4/192.0.2.7/tcp/1/webrtc-direct/certhash/${HASH}`, `/ip4/192.0.2.7/udp/0/webrtc-direct/certhash/${HASH}`,
    `/ip4/192.0.2.7/udp/65536/webrtc-direct/certhash/${HASH}`, `/ip4/192.0.2.256/udp/1/webrtc-direct/certhash/${HASH}`,
    `/ip4/192.0.02.1/udp/1/webrtc-direct/certhash/${HASH}`, `/ip6/::1%eth0/udp/1/webrtc-direct/certhash/${HASH}`,
    `/ip6/1:2:3/udp/1/webrtc-direct/certhash/${HASH}`, `/ip6/::1::/udp/1/webrtc-direct/certhash/${HASH}`,
    `/dns4/1.2.3/udp/1/webrtc-direct/certhash/${HASH}`, `/dns4/a b/udp/1/webrtc-direct/certhash/${HASH}`,
    `/ip4/192.0.2.7/udp/1/webrtc-direct/certhash/${HASH.slice(0, -2)}`, `/ip4/192.0.2.7/udp/1/webrtc-direct/certhash/${HASH}/p2p/x`,
    `/ip4/192.0.2.7/udp/1/webrtc-direct/certhash/${HASH}/p2p`, `/ip4/192.0.2.7\r\na=x/udp/1/webrtc-direct/certhash/${HASH}`,
    `/dns4/a\r\n/udp/1/webrtc-direct/certhash/${HASH}`
  ]
  for (const text of wrong) assert.throws(() => parseMultiaddr(text), PeerError, text)
})

test('local addresses are told from others', () => {
  const local = (family: 'ip4' | 'ip6' | 'dns4', host: string) => isLocal({ family, host })
  for (const host of ['127.0.0.1', '10.1.2.3', '172.31.0.1', '192.168.1.1', '169.254.0.1']) assert.ok(local('ip4', host), host)
  for (const host of ['172.32.0.1', '192.0.2.1', '8.8.8.8']) assert.ok(!local('ip4', host), host)
  for (const host of ['::1', 'fd00::1', 'fe80::1']) assert.ok(local('ip6', host), host)
  for (const host of ['::', '2001:db8::1', '::2']) assert.ok(!local('ip6', host), host)
  assert.ok(local('dns4', 'localhost') && !local('dns4', 'example.com'))
})
