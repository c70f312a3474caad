import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PeerError } from '../../src/core/errors.ts'
import { readTurn } from '../../src/core/turn.ts'

const REGISTRY = 'https://registry.example.com'
const said = (...urls: unknown[]) => ({ urls, username: '1800000600:x', credential: 'c2VjcmV0', expires_at: 1800000600000 }) as never

test('a page takes TURN servers as a registry names them', () => {
  const urls = ['turns:turn.example.com:443?transport=tcp', 'turn:203.0.113.7?transport=tcp', 'turn:[2001:db8::7]:3478']
  assert.deepEqual(readTurn(said(...urls), REGISTRY), { urls, username: '1800000600:x', credential: 'c2VjcmV0', expiresAt: 1800000600000 })
})

test('it takes no other URL, no port of other services, and four at most', () => {
  const other = ['stun:turn.example.com', 'https://turn.example.com', 'turn:a.example?transport=tls', 'turn:a.example:0', 'turn:a.example:70000', 7, null]
  const low = ['turn:a.example:22?transport=tcp', 'turns:a.example:25']
  const long = `turn:${'a'.repeat(250)}.example`
  for (const url of [...other, ...low, long, 'turn:a b', 'turn:user@a.example', 'turn:a.example/x'])
    assert.throws(() => readTurn(said(url), REGISTRY), PeerError, String(url))
  const many = Array.from({ length: 9 }, (_, number) => `turn:t${number}.example.com`)
  assert.deepEqual(readTurn(said(...many), REGISTRY).urls, many.slice(0, 4))
})

test('a registry sends the browser to nothing that is nearer to it than the registry', () => {
  const machine = ['127.0.0.1', 'localhost', 'a.localhost.', '[::1]', '0.0.0.0', '127.1', '2130706433', '0x7f000001', '127.0.0.0x1', '169.254.169.254', '[::ffff:127.0.0.1]', '224.0.0.1']
  const network = [
    ...['192.168.1.7', '10.0.0.7', '172.16.0.7', '192.0.0.8', '198.18.0.7', '198.19.255.7', '[fd00::7]', '[fec0::7]', '[feff::7]'],
    ...['[64:ff9b::10.0.0.7]', '[64:ff9b:1::7]', '[2002:a00:7::1]', 'printer', 'printer.', 'printer.local', 'Printer.LAN', 'printer.home.arpa', 'db.internal.']
  ]
  const provider = ['100.64.0.7', '100.99.1.7', '100.127.255.7']
  const anywhere = ['100.63.0.7', '100.128.0.7', '198.17.0.7', '198.20.0.7', '192.0.1.7', '[2003::7]', '[2001:db8::7]', 'lan.example.com', 'internal.example']
  const takes = (host: string, registry: string) => {
    try {
      return readTurn(said(`turn:${host}:5432?transport=tcp`), registry).urls.length === 1
    } catch {
      return false
    }
  }
  for (const host of [...machine, ...network, ...provider]) assert.equal(takes(host, REGISTRY), false, host)
  for (const host of anywhere) assert.equal(takes(host, REGISTRY), true, host)
  for (const host of [...machine, ...network]) assert.equal(takes(host, 'http://100.64.0.1:8360'), false, host)
  for (const host of provider) for (const registry of ['http://100.64.0.1:8360', 'http://192.168.1.2:8360', 'http://nas:8360']) assert.equal(takes(host, registry), true, host)
  for (const host of machine) assert.equal(takes(host, 'http://192.168.1.2:8360'), false, host)
  for (const host of network) assert.equal(takes(host, 'http://192.168.1.2:8360'), true, host)
  for (const host of [...network, '127.0.0.1']) assert.equal(takes(host, 'http://127.0.0.1:8360'), true, host)
})

test('what has no name or password, or too long ones, is refused', () => {
  for (const wrong of [{ username: '' }, { credential: 7 }, { credential: 'x'.repeat(513) }, { urls: 'turn:a.example' }])
    assert.throws(() => readTurn({ ...(said('turn:a.example') as object), ...wrong }, REGISTRY), PeerError)
})
