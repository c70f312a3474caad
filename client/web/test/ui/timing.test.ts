import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Choice, timingOf, whenOf } from '../../src/ui/flows/timing.ts'

const CHOICE: Choice = { kind: 'daily', time: '07:05', day: 'SUN', count: '3', unit: 'hours', at: '2036-12-01T07:00', cron: ' */5 * * * * ', tz: 'Europe/Berlin' }

test('a choice is what a node takes', () => {
  const tz = 'Europe/Berlin'
  const expected = [
    ['daily', { cron: '5 7 * * *', tz }, 'Every day, 07:05 (Europe/Berlin)'],
    ['weekdays', { cron: '5 7 * * MON-FRI', tz }, 'Monday to Friday, 07:05 (Europe/Berlin)'],
    ['weekly', { cron: '5 7 * * SUN', tz }, 'Every Sunday, 07:05 (Europe/Berlin)'],
    ['every', { every_s: 10_800 }, 'Every 3 hours'],
    ['once', { at: new Date(2036, 11, 1, 7).getTime(), tz }, 'Once'],
    ['cron', { cron: '*/5 * * * *', tz }, '*/5 * * * * (Europe/Berlin)']
  ] as const
  for (const [kind, timing, when] of expected) {
    assert.deepEqual(timingOf({ ...CHOICE, kind }), timing)
    assert.equal(whenOf({ cron: null, every_s: null, ...timing }), when)
  }
})

test('how often is said in the largest unit that fits', () => {
  for (const [every_s, said] of [[60, '1 minute'], [5400, '90 minutes'], [3600, '1 hour'], [172_800, '2 days'], [90, '1 min 30 s']] as const)
    assert.equal(whenOf({ every_s }), `Every ${said}`)
})

test('what is no time is not sent', () => {
  for (const change of [
    { kind: 'daily', time: '' },
    { kind: 'every', count: '' },
    { kind: 'every', count: '0' },
    { kind: 'every', count: '1.5' },
    { kind: 'every', count: '-1' },
    { kind: 'every', count: '367', unit: 'days' },
    { kind: 'once', at: '' },
    { kind: 'cron', cron: ' ' }
  ] as const)
    assert.equal(timingOf({ ...CHOICE, ...change }), undefined, JSON.stringify(change))
  assert.deepEqual(timingOf({ ...CHOICE, kind: 'every', count: '366', unit: 'days' }), { every_s: 366 * 86_400 })
})
