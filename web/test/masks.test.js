// The masks of objects: their place, their figures, and several in one label image.
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { allOf, around, labelled, maskOf, middleOf } from '../page/image/masks.js'
import { maskOver, placement } from '../page/shared/preprocessing.js'

const SIDE = 32

/**
 * A step whose mask has a few cells inside, away from the edges.
 *
 * @param {import('../page/shared/preprocessing.js').Placement} place
 * @param {number[][]} cells column and row
 * @returns {import('../page/image/objects.js').Step}
 */
function step(place, cells) {
  const data = new Float32Array(2 * SIDE * SIDE).fill(-1)
  for (const [x, y] of cells) data[SIDE * SIDE + y * SIDE + x] = 5
  const answer = {
    masks: { data, dims: [1, 2, SIDE, SIDE] },
    scores: Float32Array.of(0.1, 0.9),
    best: 1,
    threshold: 0,
    place,
    milliseconds: 0,
  }
  const prompt = { points: [], box: null }
  return { prompt, refines: null, answer, choice: null, since: 0 }
}

const PLACES = [placement(300, 200, 128, 'stretch'), placement(300, 200, 128, 'longest side')]

test('the region of a mask contains all of it, at any size', () => {
  for (const place of PLACES) {
    const mask = maskOf(step(place, [[3, 4], [11, 9], [12, 20]]))
    assert(mask)
    for (const size of [{ width: 30, height: 20 }, { width: 700, height: 467 }, place]) {
      const { width, height } = size
      const whole = maskOver(mask.logits, SIDE, place, width, height, 0)
      const part = mask.over(size)
      assert(part.values.length < whole.length)
      const labels = labelled([{ number: 1, area: 1, part: () => part }], allOf(size))
      assert.deepEqual([...labels], [...whole])
    }
  }
})

test('a part of the image shows the part of the mask inside it', () => {
  const [place] = PLACES
  const mask = maskOf(step(place, [[3, 4], [11, 9]]))
  assert(mask)
  const seen = { left: 100, top: 40, right: 180, bottom: 90 }
  const { width, height } = place
  const part = mask.over(place, seen)
  const whole = maskOver(mask.logits, SIDE, place, width, height, 0, seen)
  const labels = labelled([{ number: 1, area: 1, part: () => part }], seen)
  assert.deepEqual([...labels], [...whole])
  const beside = mask.over(place, { left: 200, top: 150, right: 300, bottom: 200 })
  assert.equal(beside.values.length, 0)
})

test('a mask has its share of the image, and a place inside', () => {
  for (const place of PLACES) {
    const mask = maskOf(step(place, [[10, 10], [11, 10], [10, 11], [11, 11]]))
    assert(mask?.middle)
    const whole = maskOver(mask.logits, SIDE, place, 300, 200, 0)
    const share = whole.filter(Boolean).length / whole.length
    assert(Math.abs(mask.share - share) < 0.001)
    const at = Math.floor(mask.middle.y * 200) * 300 + Math.floor(mask.middle.x * 300)
    assert.equal(whole[at], 1)
  }
})

test('a mask with nothing inside covers nothing and has no middle', () => {
  const mask = maskOf(step(PLACES[0], []))
  assert.equal(mask?.share, 0)
  assert.equal(mask?.middle, null)
  assert.equal(mask?.over(PLACES[0]).values.length, 0)
})

test('the mask of a step is the one that a person chose', () => {
  const asked = step(PLACES[0], [[3, 4]])
  assert.notEqual(maskOf(asked)?.share, 0)
  assert.equal(maskOf(asked), maskOf({ ...asked })) // computed once
  assert.equal(maskOf({ ...asked, choice: 0 })?.share, 0)
  assert.equal(maskOf({ ...asked, answer: null }), null)
})

test('regions get a margin, limited to the visible part', () => {
  const one = { left: 5, top: 6, right: 10, bottom: 12 }
  const other = { left: 8, top: 1, right: 30, bottom: 4 }
  const seen = { left: 0, top: 0, right: 32, bottom: 20 }
  assert.deepEqual(around([one, other], 4, seen), { left: 1, top: 0, right: 32, bottom: 16 })
})

test('where objects overlap, the smaller one is on top', () => {
  const all = { left: 4, top: 6, right: 6, bottom: 8 }
  const below = { left: 4, top: 7, right: 6, bottom: 8 }
  const part = { region: all, values: Uint8Array.of(1, 1, 1, 1) }
  const large = { number: 1, area: 4, part: () => part }
  const small = { number: 2, area: 1, part: () => ({ region: below, values: Uint8Array.of(0, 1) }) }
  assert.deepEqual([...labelled([small, large], all)], [1, 1, 1, 2])
})

test('the middle of a mask is inside it', () => {
  const ring = Uint8Array.of(1, 1, 1, 1, 0, 1, 1, 1, 1)
  const middle = middleOf(ring, 3)
  assert.ok(middle)
  assert.equal(ring[Math.floor(middle.y * 3) * 3 + Math.floor(middle.x * 3)], 1)
  assert.equal(middleOf(Uint8Array.of(0, 0), 2), null)
})
