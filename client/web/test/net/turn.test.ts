import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DeadlineError, IdentityError, PeerError, UnreachableError } from '../../src/core/errors.ts'
import type { Turn } from '../../src/core/turn.ts'
import { mostTelling } from '../../src/net/node.ts'
import { KeptTurn, TurnError, TurnWatch, gather, inTurn } from '../../src/net/turn.ts'

const LONG = 60_000
const never = new Promise<never>(() => undefined)

function asking(expiresIn: number) {
  const state = { now: 1_800_000_000_000, asked: 0, fails: false }
  const kept = new KeptTurn(() => {
    state.asked++
    if (state.fails) return Promise.reject(new UnreachableError('away'))
    return Promise.resolve({ urls: ['turn:t.example.com'], username: String(state.asked), credential: 'x', expiresAt: state.now + expiresIn })
  }, () => state.now)
  return { state, kept }
}

test('a registry is asked for TURN servers once, until what it said has nearly expired', async () => {
  const { state, kept } = asking(600_000)
  const [one, two] = await Promise.all([kept.get(), kept.get()])
  state.now += 539_000
  assert.equal(await kept.get(), one)
  assert.equal(two, one)
  state.now += 2000
  assert.notEqual(await kept.get(), one)
  assert.equal(state.asked, 2)
})

test('a clock that differs keeps nothing for longer, and what failed is asked for again', async () => {
  const late = asking(7_200_000)
  const first = await late.kept.get()
  late.state.now += 541_000
  assert.notEqual(await late.kept.get(), first)
  const early = asking(-3_600_000)
  await early.kept.get()
  await early.kept.get()
  assert.equal(early.state.asked, 2)
  const away = asking(600_000)
  away.state.fails = true
  await assert.rejects(away.kept.get(), UnreachableError)
  away.state.fails = false
  assert.equal((await away.kept.get()).username, '2')
})

test('what a TURN server refused is asked for again', async () => {
  const { state, kept } = asking(600_000)
  const turn: Turn = await kept.get()
  const connection = new EventTarget()
  const watch = new TurnWatch(connection as RTCPeerConnection, turn, () => undefined)
  const refusal = (errorCode: number) => Object.assign(new Event('icecandidateerror'), { errorCode, errorText: '', url: turn.urls[0] })
  connection.dispatchEvent(refusal(701))
  assert.equal(await kept.get(), turn)
  connection.dispatchEvent(refusal(401))
  assert.notEqual(await kept.get(), turn)
  assert.equal(state.asked, 2)
  watch.close()
})

test('a registry that is silent holds up none that answers', async () => {
  const ended = new AbortController()
  const signal = ended.signal
  assert.deepEqual(await gather([never, Promise.resolve('b'), Promise.reject(new Error('no'))], signal, 1), ['b'])
  assert.deepEqual(await gather([Promise.resolve('a'), Promise.resolve('b')], signal, LONG), ['a', 'b'])
  assert.deepEqual(await gather([Promise.reject(new Error('no'))], signal, LONG), [])
  assert.deepEqual(await gather([], signal, LONG), [])
  const waiting = gather([never], signal, LONG)
  ended.abort()
  assert.deepEqual(await waiting, [])
  assert.deepEqual(await gather([never], signal, LONG), [])
})

test('no registry alone decides what is dialled', () => {
  assert.deepEqual(inTurn([['a1', 'a2', 'a3', 'a4'], [], ['b1', 'b2']], 4), ['a1', 'b1', 'a2', 'b2'])
  assert.deepEqual(inTurn([['a1', 'a2', 'a3']], 4), ['a1', 'a2', 'a3'])
  assert.deepEqual(inTurn([], 4), [])
})

test('of several failures the one is told that says most', () => {
  const [identity, peer, turn, deadline, away] = [new IdentityError('', 'a', 'b'), new PeerError(''), new TurnError(''), new DeadlineError(''), new UnreachableError('')]
  const order = [identity, peer, turn, deadline, away]
  for (let from = 0; from < order.length; from++) assert.equal(mostTelling(order.slice(from).reverse()), order[from])
  assert.equal(mostTelling([away, new AggregateError([turn])]), turn)
})
