// What of a stack's samples is black and white, and their pixels.
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { pixelsOf, RangeFinder } from '../page/frames/gray.js'

/** @param {ArrayLike<number>[]} frames */
function rangeOf(...frames) {
  const finder = new RangeFinder(frames.length)
  for (const frame of frames) finder.add(frame)
  return finder.range
}

/** @param {Uint8ClampedArray} pixels */
const reds = (pixels) => [...pixels].filter((_, i) => i % 4 === 0)

test('the range is of the whole stack', () => {
  assert.deepEqual(rangeOf([10, 20], [30, 400]), { low: 10, high: 400 })
})

test('one sample in a thousand may lie below it, and one above', () => {
  const samples = Uint16Array.from({ length: 10_001 }, (_, i) => i)
  assert.deepEqual(rangeOf(samples), { low: 10, high: 9990 })
})

test('few samples that differ from all others are the range', () => {
  const samples = new Uint16Array(10_001)
  samples[5000] = 700
  assert.deepEqual(rangeOf(samples), { low: 0, high: 700 })
})

test('what is not a number is left out', () => {
  assert.deepEqual(rangeOf([NaN, -0.5, 0.25, Infinity]), { low: -0.5, high: 0.25 })
  assert.deepEqual(rangeOf([NaN]), { low: 0, high: 1 })
})

test('of many frames each has its share of what is looked at', () => {
  const finder = new RangeFinder(10_000)
  for (let i = 0; i < 100; i++) finder.add(new Float32Array(50_000).fill(i))
  assert(finder.kept.length < 100 * 1000)
  assert.deepEqual(finder.range, { low: 0, high: 99 })
})

test('samples are scaled to 8 bits, and cut at the ends of the range', () => {
  const pixels = pixelsOf([[100, 300, 500, 0, 900]], { low: 100, high: 500 })
  assert.deepEqual(reds(pixels), [0, 128, 255, 0, 255])
  assert.deepEqual([...pixels.slice(4, 8)], [128, 128, 128, 255])
})

test('where the least is white, light and dark are exchanged', () => {
  const pixels = pixelsOf([[0, 255]], { low: 0, high: 255 }, true)
  assert.deepEqual(reds(pixels), [255, 0])
})

test('three planes are red, green and blue', () => {
  const pixels = pixelsOf([[1], [2], [3]], { low: 0, high: 255 })
  assert.deepEqual([...pixels], [1, 2, 3, 255])
})

test('a stack of one value is black', () => {
  assert.deepEqual(reds(pixelsOf([[7, 7]], rangeOf([7, 7]))), [0, 0])
})
