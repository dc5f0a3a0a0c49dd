// The reference for consumers: sizes, coordinates and masks.
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { imageTensor, inInput, maskOver, placement } from '../page/shared/preprocessing.js'

const longest = /** @type {const} */ ('longest side')
const preprocessing = {
  mean: /** @type {[number, number, number]} */ ([100, 50, 10]),
  std: /** @type {[number, number, number]} */ ([10, 5, 2]),
  resize: longest,
  point_labels: { padding: -1, background: 0, foreground: 1, box_top_left: 2, box_bottom_right: 3 },
}

test("an image's longer side fills the input, at the top left", () => {
  assert.deepEqual(placement(2048, 1024, 1024, longest), {
    size: 1024, width: 2048, height: 1024,
    scaleX: 0.5, scaleY: 0.5, scaledWidth: 1024, scaledHeight: 512,
  })
  assert.deepEqual(placement(100, 400, 512, longest), {
    size: 512, width: 100, height: 400,
    scaleX: 1.28, scaleY: 1.28, scaledWidth: 128, scaledHeight: 512,
  })
})

test('a stretched image fills the input in both directions', () => {
  assert.deepEqual(placement(2048, 512, 1024, 'stretch'), {
    size: 1024, width: 2048, height: 512,
    scaleX: 0.5, scaleY: 2, scaledWidth: 1024, scaledHeight: 1024,
  })
})

test('an image on a canvas fills its width or its height, and keeps its proportions', () => {
  assert.deepEqual(placement(2048, 1024, 1024, 'canvas'), {
    size: 1024, width: 2048, height: 1024, canvas: 684,
    scaleX: 0.5, scaleY: 0.5, scaledWidth: 1024, scaledHeight: 512,
  })
  assert.deepEqual(placement(200, 1368, 1024, 'canvas'), {
    size: 1024, width: 200, height: 1368, canvas: 684,
    scaleX: 0.5, scaleY: 0.5, scaledWidth: 100, scaledHeight: 684,
  })
})

test('a canvas has raw red, green and blue, pixel by pixel, and is black beside the image', () => {
  const rgba = Uint8ClampedArray.from([1, 2, 3, 255, 4, 5, 6, 255])
  const place = placement(1, 2, 3, 'canvas') // 3 wide, 2 high
  const tensor = imageTensor(rgba, place, preprocessing)
  assert.deepEqual([...tensor], [1, 2, 3, 0, 0, 0, 0, 0, 0, 4, 5, 6, 0, 0, 0, 0, 0, 0])
})

test('an unknown way to resize is refused', () => {
  const other = /** @type {any} */ ('crop')
  assert.throws(() => placement(1, 1, 1, other), /unknown resize "crop"/)
})

test('an image one pixel high keeps a pixel', () => {
  assert.equal(placement(4000, 1, 512, longest).scaledHeight, 1)
})

test('pixels become normalized planes of red, green and blue', () => {
  const rgba = Uint8ClampedArray.from([110, 60, 12, 255, 100, 50, 10, 255])
  const tensor = imageTensor(rgba, placement(2, 1, 2, longest), preprocessing)
  assert.deepEqual([...tensor], [1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0])
})

test('the padding is zero, not black', () => {
  const rgba = new Uint8ClampedArray(1 * 2 * 4)
  const tensor = imageTensor(rgba, placement(1, 2, 2, longest), preprocessing)
  assert.deepEqual([...tensor.subarray(0, 4)], [-10, 0, -10, 0])
})

test('a stretched image has no padding', () => {
  const rgba = Uint8ClampedArray.from(Array(4).fill([110, 60, 12, 255]).flat())
  const tensor = imageTensor(rgba, placement(8, 2, 2, 'stretch'), preprocessing)
  assert.deepEqual([...tensor], [1, 1, 1, 1, 2, 2, 2, 2, 1, 1, 1, 1])
})

test('pixels of another size than the placement are refused', () => {
  const place = placement(2, 1, 2, longest)
  assert.throws(() => imageTensor(new Uint8ClampedArray(4), place, preprocessing), /2 × 1/)
})

test("points are scaled to the input's pixels and keep their order", () => {
  const points = [
    { x: 30, y: 40, foreground: true },
    { x: 10, y: 20, foreground: false },
  ]
  const prompt = { points, box: null }
  assert.deepEqual(inInput(prompt, placement(100, 50, 200, longest)).points, [
    { x: 60, y: 80, foreground: true },
    { x: 20, y: 40, foreground: false },
  ])
  assert.deepEqual(inInput(prompt, placement(100, 50, 200, 'stretch')).points, [
    { x: 60, y: 160, foreground: true },
    { x: 20, y: 80, foreground: false },
  ])
})

test('a box drawn from any corner has its top left before its bottom right', () => {
  const place = placement(100, 50, 100, 'stretch')
  for (const box of /** @type {[number, number, number, number][]} */ ([
    [10, 20, 50, 45],
    [50, 45, 10, 20],
    [10, 45, 50, 20],
  ])) {
    assert.deepEqual(inInput({ points: [], box }, place).box, [10, 40, 50, 90])
  }
})

test('a mask is cut where the logits cross zero between the centres of cells', () => {
  // Centres at 2, 6, 10 and 14 of 16 pixels; zero lies a quarter of the way from 6 to 10.
  const row = [-3, -1, 3, 3]
  const logits = Float32Array.from([...row, ...row, ...row, ...row])
  const mask = maskOver(logits, 4, placement(16, 16, 16, longest), 16, 16, 0)
  const first = [...mask.subarray(0, 16)]
  assert.deepEqual(first, [0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1])
  assert.deepEqual([...mask.subarray(240)], first)
})

test('a mask covers only the image, not the padding below it', () => {
  const logits = Float32Array.from([1, 1, -1, -1])
  // The image is the upper half of the input, where the mask is.
  assert.deepEqual([...maskOver(logits, 2, placement(8, 4, 8, longest), 4, 1, 0)], [1, 1, 1, 1])
  const tall = maskOver(Float32Array.from([1, -1, 1, -1]), 2, placement(4, 8, 8, longest), 1, 4, 0)
  assert.deepEqual([...tall], [1, 1, 1, 1])
})

test('a mask of a stretched image covers all of it', () => {
  const logits = Float32Array.from([1, 1, -1, -1])
  const mask = maskOver(logits, 2, placement(8, 4, 8, 'stretch'), 2, 4, 0)
  assert.deepEqual([...mask], [1, 1, 1, 1, 0, 0, 0, 0])
})

test('a mask uses the threshold of its contract', () => {
  const logits = Float32Array.from([1, 3, 1, 3])
  assert.deepEqual([...maskOver(logits, 2, placement(2, 2, 2, longest), 2, 2, 2)], [0, 1, 0, 1])
})

test('a region of a mask equals that part of the whole mask', () => {
  const logits = Float32Array.from({ length: 16 }, (_, i) => Math.sin(i * 2.3))
  const place = placement(20, 12, 16, longest)
  const whole = maskOver(logits, 4, place, 20, 12, 0)
  const region = maskOver(logits, 4, place, 20, 12, 0, { left: 3, top: 2, right: 17, bottom: 9 })
  const expected = []
  for (let y = 2; y < 9; y++) expected.push(...whole.subarray(y * 20 + 3, y * 20 + 17))
  assert.deepEqual([...region], expected)
})
