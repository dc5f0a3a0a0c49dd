// The reference for consumers: sizes, coordinates and masks.
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { best, imageTensor, maskOver, placement, promptTensors } from '../page/preprocessing.js'

const preprocessing = {
  mean: /** @type {[number, number, number]} */ ([100, 50, 10]),
  std: /** @type {[number, number, number]} */ ([10, 5, 2]),
  point_labels: { background: 0, foreground: 1, box_top_left: 2, box_bottom_right: 3 },
}

test("an image's longer side fills the input, at the top left", () => {
  assert.deepEqual(placement(2048, 1024, 1024), {
    size: 1024, width: 2048, height: 1024, scale: 0.5, scaledWidth: 1024, scaledHeight: 512,
  })
  assert.deepEqual(placement(100, 400, 512), {
    size: 512, width: 100, height: 400, scale: 1.28, scaledWidth: 128, scaledHeight: 512,
  })
})

test('a line of one pixel keeps a pixel', () => {
  assert.equal(placement(4000, 1, 512).scaledHeight, 1)
})

test('pixels become normalized planes of red, green and blue', () => {
  const rgba = Uint8ClampedArray.from([110, 60, 12, 255, 100, 50, 10, 255])
  const tensor = imageTensor(rgba, placement(2, 1, 2), preprocessing)
  assert.deepEqual([...tensor], [1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0])
})

test('what the image does not cover is zero, not black', () => {
  const rgba = new Uint8ClampedArray(1 * 2 * 4)
  const tensor = imageTensor(rgba, placement(1, 2, 2), preprocessing)
  assert.deepEqual([...tensor.subarray(0, 4)], [-10, 0, -10, 0])
})

test('pixels of another size than the placement are refused', () => {
  const place = placement(2, 1, 2)
  assert.throws(() => imageTensor(new Uint8ClampedArray(4), place, preprocessing), /2 × 1/)
})

test("points are scaled to the input's pixels and keep their order", () => {
  const points = [
    { x: 30, y: 40, foreground: true },
    { x: 10, y: 20, foreground: false },
  ]
  const found = promptTensors({ points, box: null }, placement(100, 50, 200), preprocessing)
  assert.deepEqual([...found.coords], [60, 80, 20, 40])
  assert.deepEqual([...found.labels], [1, 0])
  assert.equal(found.count, 2)
})

test('a box drawn from any corner comes first, its top left before its bottom right', () => {
  const points = [{ x: 1, y: 2, foreground: true }]
  const place = placement(100, 100, 100)
  for (const box of /** @type {[number, number, number, number][]} */ ([
    [10, 20, 50, 60],
    [50, 60, 10, 20],
    [10, 60, 50, 20],
  ])) {
    const found = promptTensors({ points, box }, place, preprocessing)
    assert.deepEqual([...found.coords], [10, 20, 50, 60, 1, 2])
    assert.deepEqual([...found.labels], [2, 3, 1])
  }
})

test('a mask is cut where the logits cross zero between the centres of cells', () => {
  // Centres at 2, 6, 10 and 14 of 16 pixels; zero lies a quarter of the way from 6 to 10.
  const row = [-3, -1, 3, 3]
  const mask = maskOver(Float32Array.from([...row, ...row, ...row, ...row]), 4, placement(16, 16, 16), 16, 16)
  const first = [...mask.subarray(0, 16)]
  assert.deepEqual(first, [0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1])
  assert.deepEqual([...mask.subarray(240)], first)
})

test('a mask covers the image alone, not the padding below it', () => {
  const logits = Float32Array.from([1, 1, -1, -1])
  // The image is the upper half of the input, where the mask is.
  assert.deepEqual([...maskOver(logits, 2, placement(8, 4, 8), 4, 1)], [1, 1, 1, 1])
  const tall = maskOver(Float32Array.from([1, -1, 1, -1]), 2, placement(4, 8, 8), 1, 4)
  assert.deepEqual([...tall], [1, 1, 1, 1])
})

test('the best mask is the one of the highest predicted IoU', () => {
  assert.equal(best([0.2, 0.9, 0.5]), 1)
  assert.equal(best([0.2]), 0)
})
