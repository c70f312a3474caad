import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PeerError } from '../../src/core/errors.ts'
import { delaysOf, readPath, tagOf } from '../../src/core/path.ts'
import { vectors } from '../vectors.ts'

const RELAY = ['203.0.113.1', 8360]
const place = ([host, port]: (string | number)[]) => ({ family: String(host).includes(':') ? 'ip6' : 'ip4', host, port })

test('a node has the tag at relays that the vectors say', () => {
  const { tags } = vectors<{ tags: { peer_id: string; tag: string }[] }>('relay')
  assert.equal(tags.length, 3)
  for (const { peer_id, tag } of tags) assert.equal(tagOf(peer_id), tag)
})

test('addresses of one port are dialled one after the other, and a relay with the first of them', () => {
  assert.deepEqual(delaysOf([4711, 4711, 4711, 8360, 8360].map(port => ({ port }))), [0, 100, 200, 0, 100])
})

test('a node says which way packets take, over which relay, and where it is', () => {
  assert.deepEqual(readPath({ route: 'lan', more: 1 }), { route: 'lan' })
  assert.deepEqual(readPath({ route: 'relay', relay: RELAY }), { route: 'relay', relay: place(RELAY) })
  for (const own of [['198.51.100.7', 4711], ['2001:db8::7', 4711]])
    assert.deepEqual(readPath({ route: 'relay', relay: RELAY, own }), { route: 'relay', relay: place(RELAY), own: place(own) })
})

test('a node sends the browser to no local network but that of its relay, and to no service', () => {
  const nowhere = ['127.0.0.1', '0.0.0.0', '169.254.1.1', '224.0.0.1', '255.255.255.255', '::1', '::', 'fe80::1', 'ff02::1', '::ffff:127.0.0.1']
  const refused = [...nowhere, '192.168.1.1', '10.0.0.1', 'fd00::1', '100.64.0.1', '64:ff9b::a00:1', '2002:a00:1::1', 'fec0::1'].map(host => [host, 4711])
  for (const own of [...refused, ['198.51.100.7', 1023]]) assert.equal(readPath({ route: 'relay', relay: RELAY, own }).own, undefined, String(own))
  for (const host of nowhere) assert.equal(readPath({ route: 'relay', relay: ['192.168.1.10', 8360], own: [host, 4711] }).own, undefined, host)
  assert.deepEqual(readPath({ route: 'relay', relay: ['192.168.1.10', 8360], own: ['10.0.0.1', 4711] }).own, place(['10.0.0.1', 4711]))
  assert.equal(readPath({ route: 'relay', relay: ['100.64.0.1', 8360], own: ['10.0.0.1', 4711] }).own, undefined)
  assert.deepEqual(readPath({ route: 'relay', relay: ['100.64.0.1', 8360], own: ['100.64.0.2', 4711] }).own, place(['100.64.0.2', 4711]))
  // Without a relay there is nothing to be let in beside.
  assert.deepEqual(readPath({ route: 'direct', own: ['198.51.100.7', 4711] }), { route: 'direct' })
})

test('what is no answer is refused', () => {
  const wrong = [null, [], {}, { route: 'memory' }, { route: 'relay', relay: 'x' }, { route: 'relay', relay: ['example.com', 1] }]
  for (const value of [...wrong, { route: 'relay', relay: ['203.0.113.1', 0] }, { route: 'relay', relay: RELAY, own: ['1.2.3.4 typ host', 4711] }])
    assert.throws(() => readPath(value), PeerError, JSON.stringify(value))
})
