// Which samples of a stack are black and white, and the resulting pixels.
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { Levels, pixelsOf, RangeFinder, seenPlanes, stretch } from '../page/frames/gray.js'

/** @param {ArrayLike<number>[]} frames */
function rangeOf(...frames) {
  const finder = new RangeFinder(frames.length)
  for (const frame of frames) finder.add(frame)
  return finder.range
}

/** @param {Uint8ClampedArray} pixels */
const reds = (pixels) => [...pixels].filter((_, i) => i % 4 === 0)

test('the range covers the whole stack', () => {
  assert.deepEqual(rangeOf([10, 20], [30, 400]), { low: 10, high: 400 })
})

test('one sample in a thousand can lie below the range, and one above', () => {
  const samples = Uint16Array.from({ length: 10_001 }, (_, i) => i)
  assert.deepEqual(rangeOf(samples), { low: 10, high: 9990 })
})

test('a few samples that differ from all others define the range', () => {
  const samples = new Uint16Array(10_001)
  samples[5000] = 700
  assert.deepEqual(rangeOf(samples), { low: 0, high: 700 })
})

test('values that are not finite are left out', () => {
  assert.deepEqual(rangeOf([NaN, -0.5, 0.25, Infinity]), { low: -0.5, high: 0.25 })
  assert.deepEqual(rangeOf([NaN]), { low: 0, high: 1 })
})

test('each of many frames has an equal share of the sampled values', () => {
  const finder = new RangeFinder(10_000)
  for (let i = 0; i < 100; i++) finder.add(new Float32Array(50_000).fill(i))
  assert(finder.kept.length < 100 * 1000)
  assert.deepEqual(finder.range, { low: 0, high: 99 })
})

test('samples are scaled to 8 bits, and clipped at the ends of the range', () => {
  const pixels = pixelsOf([[100, 300, 500, 0, 900]], { low: 100, high: 500 })
  assert.deepEqual(reds(pixels), [0, 128, 255, 0, 255])
  assert.deepEqual([...pixels.slice(4, 8)], [128, 128, 128, 255])
})

test('light and dark are swapped if the least value is white', () => {
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

test('single pixels that differ from their neighbours do not count', () => {
  const samples = Uint16Array.from({ length: 10_000 }, (_, i) => 100 + (i % 801))
  for (let i = 0; i < samples.length; i += 100) samples[i] = i % 200 ? 65535 : 0
  assert.deepEqual(rangeOf(samples), { low: 101, high: 899 })
})

test('an even number of columns does not hide every other column', () => {
  const samples = Uint8Array.from({ length: 2 ** 20 }, (_, i) => ((i >> 1) % 2 ? 200 : 10))
  assert.deepEqual(rangeOf(samples), { low: 10, high: 200 })
})

/** @param {ArrayLike<number>} samples @param {boolean} [areBytes] */
function levelsOf(samples, areBytes = true) {
  const levels = new Levels(1)
  levels.add(0, samples, areBytes)
  return levels
}

test('samples of 8 bits stay unchanged if they span 128 or more', () => {
  assert.deepEqual(levelsOf([20, 20, 147, 147]).of(0), { low: 20, high: 147 })
  assert.deepEqual(levelsOf([20, 20, 148, 148]).of(0), { low: 0, high: 255 })
})

test('a few bright objects on a dark background are enough to keep 8 bits unchanged', () => {
  const samples = new Uint8Array(60_000)
  samples.fill(3, 0, 30_000).fill(200, 10_000, 10_030)
  assert.deepEqual(levelsOf(samples).of(0), { low: 0, high: 255 })
  assert.deepEqual(levelsOf(samples, false).of(0), { low: 0, high: 3 })
})

test('an object smaller than a thousandth is visible on an even background', () => {
  const samples = new Uint8Array(60_000).fill(1, 10_000, 10_003)
  assert.deepEqual(levelsOf(samples).of(0), { low: 0, high: 1 })
})

test('samples of more bits are always scaled, however much they span', () => {
  assert.deepEqual(levelsOf([20, 20, 60_000, 60_000], false).of(0), { low: 20, high: 60_000 })
})

test('an 8-bit image with a single value keeps that value', () => {
  assert.deepEqual(levelsOf([7, 7, 7]).of(0), { low: 0, high: 255 })
})

test('frames of 8 bits and of more cannot be mixed', () => {
  const levels = levelsOf([1, 2])
  assert.throws(() => levels.add(0, [500], false), /Some frames have 8 bits a sample, others more/)
})

test('each channel has its own range and its own chosen range', () => {
  const levels = levelsOf([0, 0, 90, 90], false)
  levels.add(1, [500, 500, 900, 900], false)
  levels.choose(1, { low: 600, high: 700 })
  assert.deepEqual([levels.of(0), levels.of(1)], [{ low: 0, high: 90 }, { low: 600, high: 700 }])
  levels.choose(1, null)
  assert.deepEqual(levels.of(1), { low: 500, high: 900 })
})

test('the sliders reach beyond the range, but not as far as a few outliers', () => {
  const samples = Array.from({ length: 2000 }, (_, i) => (i % 1000 ? 400 + (i % 100) : 65535))
  const { low, high } = levelsOf(samples, false).bounds(0)
  assert(low === 400 && high > 580 && high < 620)
  assert.deepEqual(levelsOf([3, 3, 30]).bounds(0), { low: 0, high: 255 })
})

test('pixels of 8 bits are stretched, and keep their transparency', () => {
  const pixels = Uint8ClampedArray.of(0, 10, 20, 77, 30, 15, 255, 0)
  stretch(pixels, { low: 10, high: 20 })
  assert.deepEqual([...pixels], [0, 0, 255, 77, 255, 128, 255, 0])
})

test('invisible pixels do not affect the range', () => {
  const planes = seenPlanes(Uint8ClampedArray.of(1, 2, 3, 255, 9, 9, 9, 0, 4, 5, 6, 1))
  assert.deepEqual(planes.map((plane) => [...plane]), [[1, 4], [2, 5], [3, 6]])
})
