// Segment everything: the grid of clicks, and which masks are objects.
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { candidate, grid, objectsAmong, overlap } from '../page/image/everything.js'
import { placement } from '../page/shared/preprocessing.js'

const SIZE = 16
const square = placement(16, 16, 16, 'stretch')
const all = { score: 0, stability: 0 }

/**
 * Logits of a rectangle of cells: inside and outside.
 *
 * @param {number} left
 * @param {number} top
 * @param {number} right
 * @param {number} bottom
 * @param {number} [inside]
 */
function rectangle(left, top, right, bottom, inside = 5) {
  return Float32Array.from({ length: SIZE * SIZE }, (_, i) => {
    const [x, y] = [i % SIZE, Math.floor(i / SIZE)]
    return x >= left && x < right && y >= top && y < bottom ? inside : -5
  })
}

/**
 * @param {Float32Array} logits
 * @param {number} [score]
 * @param {import('../page/shared/preprocessing.js').Placement} [place]
 */
function mask(logits, score = 0.9, place = square) {
  const point = { x: 1, y: 2, foreground: true }
  const found = candidate(logits, SIZE, score, point, place, 0)
  assert.ok(found)
  return found
}

test('a grid has a click in the middle of each of its cells, row by row', () => {
  const points = grid(2, 8, 4).map(({ points: [{ x, y }] }) => [x, y])
  assert.deepEqual(points, [[2, 1], [6, 1], [2, 3], [6, 3]])
  assert.ok(grid(3, 9, 9).every(({ points: [point], box }) => point.foreground && box === null))
})

test('a mask counts its cells and knows the box around them', () => {
  const found = mask(rectangle(2, 3, 6, 8))
  assert.equal(found.area, 20)
  assert.deepEqual(found.box, [2, 3, 6, 8])
})

test('a mask without a cell in the image is dropped', () => {
  const point = { x: 0, y: 0, foreground: true }
  assert.equal(candidate(rectangle(0, 0, 0, 0), SIZE, 1, point, square, 0), null)
  const wide = placement(32, 16, 16, 'longest side') // the lower half is padding
  assert.equal(candidate(rectangle(0, 8, 16, 16), SIZE, 1, point, wide, 0), null)
})

test('cells in the padding do not count', () => {
  const wide = placement(32, 16, 16, 'longest side')
  const found = mask(rectangle(0, 6, 4, 12), 0.9, wide)
  assert.equal(found.area, 8)
  assert.deepEqual(found.box, [0, 6, 4, 8])
})

test('stability is the IoU of the mask cut a logit above and a logit below the threshold', () => {
  const logits = rectangle(0, 0, 4, 4)
  logits.set([0.5, 0.5, -0.5, -0.5], 8 * SIZE) // four cells near the threshold
  assert.equal(mask(logits).stability, 16 / 20)
  assert.equal(mask(rectangle(0, 0, 4, 4)).stability, 1)
  assert.equal(mask(rectangle(0, 0, 4, 4, 0.5)).stability, 0)
})

test('the overlap of two masks is their IoU', () => {
  const one = mask(rectangle(0, 0, 8, 4))
  assert.equal(overlap(one, one), 1)
  assert.equal(overlap(one, mask(rectangle(4, 0, 12, 4))), 16 / 48)
  assert.equal(overlap(one, mask(rectangle(8, 0, 12, 4))), 0)
})

test('among masks that overlap by 0.7, the one with the highest score is the object', () => {
  const good = mask(rectangle(0, 0, 10, 10), 0.9)
  const same = mask(rectangle(0, 0, 10, 9), 0.8)
  const part = mask(rectangle(0, 0, 5, 10), 0.7)
  const other = mask(rectangle(12, 12, 16, 16), 0.95)
  assert.deepEqual(objectsAmong([same, part, good, other], all), [other, good, part])
})

test('an object is at least as good and as stable as the limits require', () => {
  const logits = rectangle(0, 0, 4, 4)
  logits.set([0.5, 0.5, 0.5, 0.5], 8 * SIZE)
  const shaky = mask(logits, 0.9)
  const poor = mask(rectangle(8, 8, 12, 12), 0.6)
  assert.deepEqual(objectsAmong([shaky, poor], { score: 0.6, stability: 0.8 }), [shaky, poor])
  assert.deepEqual(objectsAmong([shaky, poor], { score: 0.7, stability: 0.8 }), [shaky])
  assert.deepEqual(objectsAmong([shaky, poor], { score: 0.6, stability: 0.9 }), [poor])
})

test('the number of objects is not limited', () => {
  const cells = Array.from({ length: SIZE * SIZE }, (_, i) => {
    const [x, y] = [i % SIZE, Math.floor(i / SIZE)]
    return mask(rectangle(x, y, x + 1, y + 1))
  })
  assert.equal(objectsAmong([...cells, ...cells], all).length, SIZE * SIZE)
})

test('an existing object is not found again, whatever its score', () => {
  const there = mask(rectangle(0, 0, 10, 10), 0.1)
  const same = mask(rectangle(0, 0, 10, 9), 0.9)
  const other = mask(rectangle(12, 12, 16, 16), 0.5)
  assert.deepEqual(objectsAmong([same, other], all, [there]), [other])
})
