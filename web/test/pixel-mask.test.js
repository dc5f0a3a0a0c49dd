// Opened masks: their pixels are unchanged, at any size.
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { labelsOf } from '../page/image/layers.js'
import { covers, logitsOn, maskOf } from '../page/image/masks.js'
import { packed, PixelMask } from '../page/image/pixel-mask.js'
import { placement } from '../page/shared/preprocessing.js'

const image = { width: 6, height: 4 }
// ..#.
// ###.  at (1, 1)
const part = {
  region: { left: 1, top: 1, right: 5, bottom: 3 },
  values: Uint8Array.of(0, 0, 1, 0, 1, 1, 1, 0),
}

test('a packed mask is unpacked unchanged', () => {
  const mask = new PixelMask(packed(part, image))
  assert.deepEqual(mask.over(image), part)
  assert.equal(mask.share, 4 / 24)
})

test('a packed mask can be cloned, whatever else the image object has', () => {
  const pixels = packed(part, Object.assign({ read: () => {} }, image))
  assert.deepEqual(structuredClone(pixels), packed(part, image))
})

test('a mask that begins with an inside pixel is unpacked unchanged', () => {
  const whole = { region: { left: 0, top: 0, right: 2, bottom: 1 }, values: Uint8Array.of(1, 1) }
  const mask = new PixelMask(packed(whole, { width: 2, height: 1 }))
  assert.deepEqual(mask.over({ width: 2, height: 1 }), whole)
})

test('drawn larger, each pixel is a square; a part can be drawn alone', () => {
  const mask = new PixelMask(packed(part, image))
  const { region, values } = mask.over({ width: 12, height: 8 })
  assert.deepEqual(region, { left: 2, top: 2, right: 10, bottom: 6 })
  assert.equal(values.reduce((sum, each) => sum + each, 0), 16)
  const seen = { left: 3, top: 1, right: 4, bottom: 2 }
  assert.deepEqual(mask.over(image, seen), { region: seen, values: Uint8Array.of(1) })
})

test('a point is on a mask if its pixel is', () => {
  const mask = new PixelMask(packed(part, image))
  assert(covers(mask, { x: 3.5 / 6, y: 1.5 / 4 }, image))
  assert(!covers(mask, { x: 1.5 / 6, y: 1.5 / 4 }, image))
  assert(!covers(mask, { x: 1, y: 1 }, image))
})

test('the middle of a mask is inside', () => {
  const mask = new PixelMask(packed(part, image))
  assert(mask.middle && covers(mask, mask.middle, image))
})

test('the logits of a mask are certain, and only inside the image in the input', () => {
  const mask = new PixelMask(packed(part, image))
  const logits = logitsOn(mask, placement(6, 4, 24, 'longest side'), 6)
  const inside = [...logits.keys()].filter((cell) => logits[cell] > 0)
  assert.deepEqual(inside, [9, 13, 14, 15])
  assert.deepEqual([...new Set(logits)].sort(), [-10, 10])
})

test('a step from a file has its mask without an answer', () => {
  const step = /** @type {any} */ ({ pixels: packed(part, image), answer: null })
  assert.deepEqual(maskOf(step)?.over(image), part)
  assert.equal(maskOf(step), maskOf(step))
})

test('only a number too large for 16 bits is refused', () => {
  const masked = (/** @type {number} */ number) => [{ number, name: '', mask: new PixelMask(packed(part, image)) }]
  assert.equal(labelsOf(masked(65535), image)[9], 65535)
  assert.throws(() => labelsOf(masked(65536), image), /up to 65535, but there is an object 65536\. Save COCO/)
})

test('a separately encoded part of the image is fed its own pixels of the mask', () => {
  const values = Uint8Array.from([1, 1, 1, 1])
  const region = { left: 4, top: 4, right: 6, bottom: 6 }
  const mask = new PixelMask(packed({ region, values }, { width: 8, height: 8 }))
  const crop = { left: 0.5, top: 0.5, width: 0.5, height: 0.5 }
  const place = { size: 4, scaledWidth: 4, scaledHeight: 4, scaleX: 1, scaleY: 1, crop }
  const inside = [...(mask.logitsIn(place, 4) ?? [])].map((logit) => Number(logit > 0))
  assert.deepEqual(inside, [1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
  const away = { ...crop, left: 0, top: 0 }
  assert.equal(mask.logitsIn({ ...place, crop: away }, 4), null)
})
