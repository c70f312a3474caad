import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseRoute, paths, settledFlows, takeSecrets } from '../../src/ui/router.ts'

const FID = '01m8njwfbd6egmz35jw91mwpgd'
const LID = '01m8njwfbd6egmz35jw91mwpge'

test('every path that is written is read back', () => {
  const path = 'flows/a b.yaml:ö#?%'
  assert.deepEqual(parseRoute(paths.flow('node', path)), { page: 'flow', node: 'node', path, like: undefined })
  const fid = '01jd2n8x4q5w6e7r8t9y0abcde'
  assert.deepEqual(parseRoute(paths.flow('node', path, fid)), { page: 'flow', node: 'node', path, like: fid })
  assert.deepEqual(parseRoute('#/flow/node/x?like=none'), { page: 'flow', node: 'node', path: 'x', like: undefined })
  assert.deepEqual(parseRoute(paths.run('node', FID)), { page: 'run', node: 'node', fid: FID, lock: undefined })
  assert.deepEqual(parseRoute(paths.run('node', FID, LID)), { page: 'run', node: 'node', fid: FID, lock: LID })
  assert.deepEqual(parseRoute(paths.link(FID)), { page: 'link', fid: FID, run: undefined })
  assert.deepEqual(parseRoute(paths.link(FID, LID)), { page: 'link', fid: FID, run: LID })
  assert.deepEqual(parseRoute(paths.flows('a&b=c', 'node')), { page: 'flows', search: 'a&b=c', node: 'node' })
  assert.deepEqual(parseRoute(paths.node('node')), { page: 'node', node: 'node' })
  assert.deepEqual(parseRoute(paths.runs()), { page: 'runs', tag: undefined })
  assert.deepEqual(parseRoute(paths.runs('a b&c')), { page: 'runs', tag: 'a b&c' })
  for (const page of ['schedules', 'invitations', 'inbox', 'me', 'nodes'] as const) assert.deepEqual(parseRoute(paths[page]), { page })
})

test('nothing but what is known is a page', () => {
  for (const hash of ['#/run/x/short', '#/run', '#/flow/x', '#/link/x', `#/link/${FID}/x`, '#/admin', '#/__proto__', '#//'])
    assert.equal(parseRoute(hash).page === 'unknown' || parseRoute(hash).page === 'flows', true, hash)
  assert.equal(parseRoute('#/run/x/short').page, 'unknown')
  assert.equal(parseRoute('').page, 'flows')
})

test('a question that is none is left out of the address of its run', () => {
  for (const lock of ['', 'short', '<b>', '__proto__'])
    assert.deepEqual(parseRoute(`#/run/node/${FID}?lock=${lock}`), { page: 'run', node: 'node', fid: FID, lock: undefined })
})

test('a fragment that is not encoded well is read as it stands', () => {
  assert.deepEqual(parseRoute('#/flow/%E0%A4%A/x%'), { page: 'flow', node: '%E0%A4%A', path: 'x%', like: undefined })
})

test('keys and tokens are taken out of the address', () => {
  assert.deepEqual(takeSecrets('#key=abc-_1'), { key: 'abc-_1', get: undefined, rest: '' })
  assert.deepEqual(takeSecrets('#key=abc#/runs'), { key: 'abc', get: undefined, rest: '#/runs' })
  assert.deepEqual(takeSecrets('#key=abc/#/flows?search=x'), { key: 'abc', get: undefined, rest: '#/flows?search=x' })
  assert.deepEqual(takeSecrets('#open=TOKEN'), { key: undefined, get: 'TOKEN', rest: '' })
  assert.deepEqual(takeSecrets('#key=abc/#get=TOKEN'), { key: 'abc', get: 'TOKEN', rest: '' })
  assert.deepEqual(takeSecrets('#get=TOKEN'), { key: undefined, get: 'TOKEN', rest: '' })
  assert.deepEqual(takeSecrets('#get='), { key: undefined, get: '', rest: '' })
  assert.deepEqual(takeSecrets('#/runs'), { key: undefined, get: undefined, rest: '#/runs' })
})

test('what is typed is written into the address of the page where it was typed, and into no other', () => {
  for (const node of [undefined, 'node']) {
    const here = paths.flows('', node)
    assert.equal(settledFlows(here, here, 'x', node), paths.flows('x', node))
    for (const gone of [paths.flows('', 'other'), paths.flows('y', node), paths.flow('node', 'path'), paths.inbox, paths.link(FID)])
      assert.equal(settledFlows(here, gone, 'x', node), undefined)
    // It went elsewhere before the page was drawn.
    assert.equal(settledFlows(paths.flows('', 'other'), paths.flows('', 'other'), 'x', node), undefined)
  }
  assert.equal(settledFlows('', '', '', undefined), paths.flows())
})
