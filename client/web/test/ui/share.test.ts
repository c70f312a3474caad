import assert from 'node:assert/strict'
import { test } from 'node:test'
import { sharedWith } from '../../src/ui/run/share.tsx'

test('for whom a share is, is read as koco reads it', () => {
  assert.deepEqual(sharedWith('ana, role:team ,operator,user:role:x, 12D3KooWabc, '), { users: ['ana', 'role:x', '12D3KooWabc'], roles: ['team', 'operator'] })
  assert.deepEqual(sharedWith(' , role:'), { users: [], roles: [] })
})
