// How tracked masks are stored.
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { placement } from '../page/shared/preprocessing.js'
import { MaskStore } from '../page/frames/mask-store.js'

const place = placement(8, 8, 8, 'stretch')

/** @param {number} id @param {number} [value] @returns {import('../page/frames/mask-store.js').TrackedMask} */
function mask(id, value = 1) {
  const logits = new Float32Array(4).fill(value)
  return { id, logits, score: value, iou: 0.5, milliseconds: 1 }
}

/** A MaskStore, and the store behind it. */
function kept() {
  /** @type {Map<string, any>} */
  const store = new Map()
  const tracks = new MaskStore(Promise.resolve(/** @type {any} */ (store)))
  return { store, tracks }
}

/** @param {MaskStore} tracks @param {number} frame */
async function shown(tracks, frame) {
  const steps = await tracks.shown(frame, place)
  return [...steps].map(([id, { answer }]) => [id, answer?.masks.data[0]])
}

test('objects tracked later are stored beside the others', async () => {
  const { tracks } = kept()
  await tracks.add(3, [mask(1), mask(2)])
  await tracks.add(3, [mask(2, 5), mask(4)])
  assert.deepEqual(await shown(tracks, 3), [[1, 1], [2, 5], [4, 1]])
})

test('a frame that was not tracked shows nothing', async () => {
  const { tracks } = kept()
  await tracks.add(3, [mask(1)])
  assert.deepEqual(await shown(tracks, 2), [])
})

test('all masks are in the store, and only a few in memory', async () => {
  const { store, tracks } = kept()
  for (let frame = 0; frame < 200; frame++) await tracks.add(frame, [mask(1, frame)])
  assert.equal(store.size, 200)
  assert(tracks.recent.kept.size < 10)
  assert.deepEqual(await shown(tracks, 17), [[1, 17]])
})

test('cleared masks are removed from the store too', async () => {
  const { store, tracks } = kept()
  await tracks.add(3, [mask(1)])
  await tracks.clear()
  assert.equal(store.size, 0)
  assert.deepEqual(await shown(tracks, 3), [])
})

test('a full store fails only the current write, not the next one', async () => {
  const { store, tracks } = kept()
  const { set } = store
  store.set = () => {
    throw new Error('no room')
  }
  await assert.rejects(tracks.add(3, [mask(1)]), /no room/)
  store.set = set
  await tracks.add(4, [mask(1)])
  assert(store.has('4'))
})
