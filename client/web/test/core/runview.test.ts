import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PeerError } from '../../src/core/errors.ts'
import { RunView, readEvent } from '../../src/core/runview.ts'
import type { Row, Value } from '../../src/core/value.ts'
import { revive, vectors } from '../vectors.ts'

type Told = [seq: number, at: number, event: string, data: Row]
const { cases } = vectors<{ cases: { name: string; events: Told[]; view: Row }[] }>('runview')

function viewOf(events: readonly Told[]): RunView {
  const view = new RunView()
  for (const [seq, at, event, data] of events) view.apply({ seq, at, kind: 'any', event, data: revive(data) as Row })
  return view
}

/** A view as the vectors write it. */
function shown(view: RunView): unknown {
  return {
    state: view.state,
    last_seq: view.lastSeq,
    created: view.created,
    modified: view.modified,
    progress: view.progress ?? null,
    inputs: view.inputs,
    version: view.version,
    flow: view.flow,
    config: [...view.config],
    agents: view.agents,
    tasks: view.tasks,
    tools: view.tools,
    outputs: [...view.outputs],
    steps: [...view.steps],
    final: view.final ?? null,
    fatal: view.fatal ?? null,
    acknowledged: view.acknowledged,
    locks: [...view.locks.values()].map(lock => ({
      lid: lock.lid,
      title: lock.title,
      schema: lock.schema,
      opened_at: lock.openedAt,
      expires_at: lock.expiresAt,
      default: lock.default,
      has_default: lock.hasDefault,
      candidate: lock.candidate ?? null,
      candidate_at: lock.candidateAt,
      verdict_s: lock.verdictS,
      roles: lock.roles,
      users: lock.users
    }))
  }
}

for (const { name, events, view } of cases)
  test(`events add up as in Python: ${name}`, () => {
    assert.deepEqual(shown(viewOf(events)), revive(view))
  })

const many = (count: number, make: (n: number) => [string, Row]): RunView =>
  viewOf(Array.from({ length: count }, (_, n): Told => [n + 1, n, ...make(n)]))

test('of each kind the latest are kept, whatever a node says', () => {
  const agents = many(1003, n => ['agent', { n }])
  assert.deepEqual([agents.agents.length, agents.agents[0], agents.agents.at(-1)], [1000, { n: 3 }, { n: 1002 }])
  const config = many(1003, n => ['config', { [`k${n}`]: n }])
  assert.deepEqual([config.config.size, config.config.has('k2'), config.config.has('k3')], [1000, false, true])
  const steps = many(1003, n => ['progress', { id: `s${n}` }])
  assert.deepEqual([steps.steps.size, steps.steps.has('s2')], [1000, false])
  const outputs = many(10_001, n => ['output', { name: `o${n}` }])
  assert.deepEqual([outputs.outputs.size, outputs.outputs.has('o0')], [10_000, false])
  const large = many(10, n => ['task', { text: 'x'.repeat(300_000), n }])
  assert.equal(large.tasks.length, 3)
})

test('what is changed often stays where it stood, and is dropped last', () => {
  const view = many(1500, n => ['progress', { id: n % 2 ? 'often' : `s${n}`, n }])
  assert.equal([...view.steps.keys()].indexOf('often'), 1)
})

test('what is no event is refused', () => {
  const good: Row = { seq: 1, at: 2, kind: 'k', event: 'e', data: {} }
  assert.deepEqual(readEvent(good), good)
  const wrong: Value[] = [
    null, 1, 'x', [], {}, { ...good, seq: 0 }, { ...good, seq: 1.5 }, { ...good, seq: 2n ** 60n }, { ...good, at: null }, { ...good, kind: 1 },
    { ...good, event: null }, { ...good, data: [] }, { ...good, data: new Uint8Array(1) }
  ]
  for (const value of wrong) assert.throws(() => readEvent(value), PeerError)
  assert.throws(() => readEvent(Object.create(good) as Row), PeerError)
})
