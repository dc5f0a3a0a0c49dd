// Storage of masks that are not in use; Node.js stands for a browser that stores nothing.
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { claimDatabase, openStore } from '../page/frames/database.js'

test('values are kept in memory if the browser stores nothing', async () => {
  const { name, left } = await claimDatabase()
  assert.equal(left, null)
  const [masks, memories] = [await openStore(name, 'masks'), await openStore(name, 'memories')]
  await masks.set('1', 'of frame 1')
  await masks.set('2', 'of frame 2')
  await masks.delete('2')
  assert.equal(await masks.get('1'), 'of frame 1')
  assert.equal(await masks.get('2'), undefined)
  assert.equal(await memories.get('1'), undefined)
  assert.deepEqual(await masks.keys(), ['1'])
  await masks.clear()
  assert.equal(await masks.get('1'), undefined)
})
