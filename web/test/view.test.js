// Zoom and pan: which place of the image lies where in the frame.
import assert from 'node:assert/strict'
import { test } from 'node:test'

import {
  fitted,
  isFitted,
  moved,
  reframed,
  showing,
  toFrame,
  toImage,
  visible,
  zoomed,
} from '../page/image/view.js'

const image = { width: 400, height: 200 }
const frame = { width: 800, height: 600 }

test('all of an image fits, in the middle of the frame', () => {
  assert.deepEqual(fitted(image, frame), { scale: 2, x: 0, y: 100 })
  assert.ok(isFitted(fitted(image, frame), image, frame))
})

test('zooming keeps the place under the pointer', () => {
  const at = { x: 700, y: 350 }
  const before = fitted(image, frame)
  const after = zoomed(before, 3, at, image, frame)
  assert.equal(after.scale, 6)
  assert.deepEqual(toImage(after, at, image), toImage(before, at, image))
})

test('zooming out ends when the whole image is visible', () => {
  const near = zoomed(fitted(image, frame), 4, { x: 10, y: 110 }, image, frame)
  assert.deepEqual(zoomed(near, 0.01, { x: 700, y: 500 }, image, frame), fitted(image, frame))
})

test('zooming in ends at eight times the fitting size', () => {
  const near = zoomed(fitted(image, frame), 1000, { x: 400, y: 300 }, image, frame)
  assert.equal(near.scale, 16)
})

test('a large image can be zoomed to eight screen pixels per pixel', () => {
  const large = { width: 8000, height: 4000 }
  const near = zoomed(fitted(large, frame), 1000, { x: 400, y: 300 }, large, frame)
  assert.equal(near.scale, 8)
})

test('an image cannot be moved out of its frame', () => {
  const near = zoomed(fitted(image, frame), 4, { x: 400, y: 300 }, image, frame)
  assert.deepEqual(moved(near, 1e4, 1e4, image, frame), { scale: 8, x: 0, y: 0 })
  assert.deepEqual(moved(near, -1e4, -1e4, image, frame), { scale: 8, x: -2400, y: -1000 })
  assert.deepEqual(moved(fitted(image, frame), 50, 50, image, frame), fitted(image, frame))
})

test('places in the frame and in the image are converted both ways', () => {
  const near = moved(zoomed(fitted(image, frame), 3, { x: 9, y: 300 }, image, frame), -40, 7, image, frame)
  const at = { x: 0.4, y: 0.6 }
  const back = toImage(near, toFrame(near, at, image), image)
  assert.ok(Math.hypot(back.x - at.x, back.y - at.y) < 1e-12)
})

test('the part of the frame that shows the image is computed', () => {
  assert.deepEqual(visible(fitted(image, frame), image, frame), {
    left: 0,
    top: 100,
    width: 800,
    height: 400,
  })
  const near = zoomed(fitted(image, frame), 4, { x: 400, y: 300 }, image, frame)
  assert.deepEqual(visible(near, image, frame), { left: 0, top: 0, width: 800, height: 600 })
})

test('an image that fits still fits after the frame is resized', () => {
  const small = { width: 400, height: 400 }
  assert.deepEqual(reframed(fitted(image, frame), image, frame, small), fitted(image, small))
})

test('the place in the middle of the frame stays there when the frame is resized', () => {
  const small = { width: 500, height: 400 }
  const near = zoomed(fitted(image, frame), 4, { x: 300, y: 250 }, image, frame)
  const after = reframed(near, image, frame, small)
  assert.equal(after.scale, near.scale)
  const before = toImage(near, { x: 400, y: 300 }, image)
  assert.deepEqual(toImage(after, { x: 250, y: 200 }, image), before)
})

test('a point out of sight is brought into view', () => {
  const near = zoomed(fitted(image, frame), 8, { x: 0, y: 100 }, image, frame)
  const { x, y } = toFrame(showing(near, { x: 0.9, y: 0.9 }, image, frame), { x: 0.9, y: 0.9 }, image)
  assert.ok(x > 0 && x < frame.width && y > 0 && y < frame.height)
})
