// Crops of a large image: which part is encoded separately, which parts of a prompt lie in it, and how
// its mask is placed in the image's mask.
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { cropOf, fineness, nameOf, placementOf, whereOf, within, withNews } from '../page/image/crop.js'
import { allOf, labelled, maskOf } from '../page/image/masks.js'
import { inInput, maskOver, placement } from '../page/shared/preprocessing.js'

const IMAGE = { width: 6144, height: 4096 }
const SIZE = 1024
const SIDE = 32
const seen = (left, top, width, height) => ({ left, top, width, height })
const click = (x, y, foreground = true) => ({ x, y, foreground })

test('the crop contains the visible part with a margin, wherever that part is', () => {
  for (const [left, top] of [[0, 0], [3000.4, 1200.7], [5144, 3196]]) {
    const crop = cropOf(seen(left, top, 1000, 900), IMAGE, SIZE, [])
    assert.deepEqual([crop.width, crop.height], [1250, 1250])
    for (const value of Object.values(crop)) assert(Number.isInteger(value))
    assert(crop.left >= 0 && crop.top >= 0)
    assert(crop.left + crop.width <= IMAGE.width && crop.top + crop.height <= IMAGE.height)
    assert(crop.left <= left && left + 1000 <= crop.left + crop.width)
    assert(crop.top <= top && top + 900 <= crop.top + crop.height)
  }
})

test('an object is enlarged at most twofold', () => {
  assert.equal(cropOf(seen(3000, 2000, 60, 40), IMAGE, SIZE, []).width, SIZE / 2)
})

test('there is no crop if the whole image is as good, or small', () => {
  assert.equal(cropOf(seen(0, 0, 6144, 4096), IMAGE, SIZE, []), null)
  assert.equal(cropOf(seen(900, 0, 4000, 4000), IMAGE, SIZE, []), null)
  assert.equal(cropOf(seen(10, 10, 50, 50), { width: 1200, height: 800 }, SIZE, []), null)
})

test('crops of a long and narrow image have its height', () => {
  const crop = cropOf(seen(9000, 0, 400, 300), { width: 20000, height: 300 }, SIZE, [])
  assert.deepEqual(crop, { left: 8944, top: 0, width: 512, height: 300 })
})

test('an encoded crop is reused while it contains the visible part and is not much coarser', () => {
  const made = cropOf(seen(3000, 2000, 1000, 900), IMAGE, SIZE, [])
  assert.equal(cropOf(seen(3100, 1900, 900, 900), IMAGE, SIZE, [made]), made)
  assert.notEqual(cropOf(seen(3300, 2000, 1000, 900), IMAGE, SIZE, [made]), made) // beyond its edge
  assert.notEqual(cropOf(seen(3200, 2200, 300, 300), IMAGE, SIZE, [made]), made) // much closer
})

test('points reach the decoder exactly in any crop', () => {
  for (const at of [[3000.37, 2000.81], [4.004, 3.996], [6143.99, 4095.5]]) {
    const crop = cropOf(seen(at[0] - 70, at[1] - 70, 140, 140), IMAGE, SIZE, [])
    const place = placementOf(crop, IMAGE, SIZE, 'stretch')
    const { prompt, isWhole } = within({ points: [click(...at)], box: [...at, ...at] }, crop)
    const { points: [{ x, y }], box } = inInput(prompt, place)
    assert(isWhole)
    for (const [along, found] of [[0, x], [1, y], [0, box[0]], [1, box[3]]]) {
      const start = along ? crop.top : crop.left
      const back = start + (found * (along ? crop.height : crop.width)) / SIZE
      assert(Math.abs(back - at[along]) < 1e-6)
    }
  }
})

test('a crop gets only the parts of a prompt inside it', () => {
  const crop = seen(1000, 1000, 500, 500)
  const points = [click(1010, 1020), click(990, 1020, false), click(1500, 1500, false)]
  const { prompt, isWhole } = within({ points, box: [1100, 1100, 1600, 1200] }, crop)
  assert.equal(isWhole, false)
  assert.deepEqual(prompt, { points: [click(10, 20), click(500, 500, false)], box: null })
})

test('the encoded part contains a point that is set outside the visible part', () => {
  const before = { points: [click(10, 10)], box: null }
  const points = [...before.points, click(4000, 50)]
  const at = withNews(seen(3000, 0, 500, 500), { points, box: null }, before)
  assert.deepEqual(at, seen(3000, 0, 1000, 500))
  const box = /** @type {any} */ ([2900, 600, 3100, 20])
  assert.deepEqual(withNews(seen(3000, 0, 500, 500), { points: [], box }, undefined), seen(2900, 0, 600, 600))
})

/** @param {any} crop @param {object[]} points @param {any} [around] */
const step = (crop, points, around = null) => ({ crop, around, prompt: { points, box: null } })

test('a prompt in another view leaves the mask around that view unchanged', () => {
  const [one, other] = [seen(0, 0, 512, 512), seen(3000, 0, 512, 512)]
  const first = step(one, [click(100, 100)])
  const both = { points: [click(100, 100), click(3100, 100)], box: null }
  assert.deepEqual(whereOf(both, first, other), { crop: other, around: first })
  const second = step(other, both.points, first)
  const third = { points: [...both.points, click(3200, 100)], box: null }
  assert.deepEqual(whereOf(third, second, other), { crop: other, around: first })
})

test('a finely drawn mask is corrected at the same resolution when zoomed out', () => {
  const fine = seen(0, 0, 512, 512)
  const first = step(fine, [click(100, 100)])
  const points = [click(100, 100), click(120, 100, false)]
  assert.deepEqual(whereOf({ points, box: null }, first, null), { crop: fine, around: null })
  const beyond = [click(100, 100), click(900, 100)]
  assert.deepEqual(whereOf({ points: beyond, box: null }, first, null), { crop: null, around: null })
})

const DRAWN = { width: 600, height: 400 }

/**
 * A step whose mask has some cells inside.
 *
 * @param {any} place
 * @param {(x: number, y: number) => boolean} inside
 * @param {any} [around]
 */
function answered(place, inside, around = null) {
  const data = new Float32Array(SIDE * SIDE)
  for (let i = 0; i < data.length; i++) data[i] = inside(i % SIDE, Math.floor(i / SIDE)) ? 5 : -5
  const masks = { data, dims: [1, 1, SIDE, SIDE] }
  const answer = { masks, scores: Float32Array.of(1), best: 0, threshold: 0, place, milliseconds: 0 }
  return /** @type {any} */ ({ answer, choice: null, around, prompt: { points: [], box: null } })
}

/** @param {any} mask @param {any} size @param {any} [region] */
const pixels = (mask, size, region = allOf(size)) => [
  ...labelled([{ number: 1, area: 1, part: () => mask.over(size, region) }], region),
]

const RESIZES = /** @type {const} */ (['stretch', 'longest side'])
const CROP = { left: 150, top: 100, width: 128, height: 100 }

test('at the size of the image a crop has the same mask as an image of its own', () => {
  for (const resize of RESIZES) {
    const place = placementOf(CROP, DRAWN, 128, resize)
    const mask = maskOf(answered(place, (x, y) => (x - 12) ** 2 + (y - 9) ** 2 < 40 || y < 2))
    const { width, height } = CROP
    const alone = maskOver(mask.logits, SIDE, placement(width, height, 128, resize), width, height, 0)
    const found = pixels(mask, DRAWN)
    const expected = found.map(() => 0)
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) expected[(100 + y) * 600 + 150 + x] = alone[y * width + x]
    }
    assert.deepEqual(found, expected)
  }
})

test('drawn at any size and in any part, a crop keeps its place in the image', () => {
  const mask = maskOf(answered(placementOf(CROP, DRAWN, 128, 'stretch'), () => true))
  for (const scale of [0.13, 0.5, 1, 1.7, 4.1]) {
    const size = { width: Math.round(600 * scale), height: Math.round(400 * scale) }
    const region = { left: 20, top: 10, right: size.width - 5, bottom: size.height }
    const found = pixels(mask, size, region)
    const middle = (at, all, whole) => ((at + 0.5) / all) * whole
    for (let y = region.top, i = 0; y < region.bottom; y++) {
      for (let x = region.left; x < region.right; x++, i++) {
        const [u, v] = [middle(x, size.width, 600), middle(y, size.height, 400)]
        const inside = u >= 150 && u < 278 && v >= 100 && v < 200
        assert.equal(found[i], inside ? 1 : 0, `${x}, ${y} at ${scale}`)
      }
    }
  }
})

test('a mask changes only inside the encoded view', () => {
  const whole = answered(placement(600, 400, 128, 'stretch'), (x, y) => x > 6 && x < 20 && y > 5 && y < 20)
  const place = placementOf(CROP, DRAWN, 128, 'stretch')
  const fine = (x, y) => x > 15 && y > 10
  const [before, patch] = [maskOf(whole), maskOf(answered(place, fine))]
  const after = maskOf(answered(place, fine, whole))
  for (const scale of [0.3, 1, 2.3]) {
    const size = { width: Math.round(600 * scale), height: Math.round(400 * scale) }
    const [old, inner, found] = [before, patch, after].map((mask) => pixels(mask, size))
    assert(found.some((value, i) => value !== old[i]))
    found.forEach((value, i) => {
      const u = (((i % size.width) + 0.5) / size.width) * 600
      const v = ((Math.floor(i / size.width) + 0.5) / size.height) * 400
      const inside = u >= 150 && u < 278 && v >= 100 && v < 200
      assert.equal(value, (inside ? inner : old)[i])
    })
    const region = { left: 10, top: 5, right: size.width - 20, bottom: size.height - 30 }
    const cut = pixels(after, size, region)
    const width = region.right - region.left
    cut.forEach((value, i) => {
      const [x, y] = [region.left + (i % width), region.top + Math.floor(i / width)]
      assert.equal(value, found[y * size.width + x])
    })
  }
})

test('an empty mask of a view removes the earlier mask only in that view', () => {
  const whole = answered(placement(600, 400, 128, 'stretch'), () => true)
  const after = maskOf(answered(placementOf(CROP, DRAWN, 128, 'stretch'), () => false, whole))
  const left = pixels(after, DRAWN).reduce((sum, value) => sum + value, 0)
  assert.equal(left, 600 * 400 - 128 * 100)
})

test('a small object has a share of the image and a middle', () => {
  const large = { width: 6144, height: 6144 }
  const crop = { left: 4000, top: 2000, width: 512, height: 512 }
  const inside = (x, y) => x >= 14 && x < 17 && y >= 20 && y < 23 // 48 × 48 pixels
  const mask = maskOf(answered(placementOf(crop, large, 512, 'stretch'), inside))
  assert(Math.abs(mask.share * 6144 ** 2 - 48 ** 2) < 500)
  assert(Math.abs(mask.middle.x * 6144 - (4000 + 15.5 * 16)) < 20)
  assert(Math.abs(mask.middle.y * 6144 - (2000 + 21.5 * 16)) < 20)
})

test('a mask is refined in another view from its part in that view', () => {
  const place = placementOf(CROP, DRAWN, 128, 'stretch')
  const first = answered(placement(600, 400, 128, 'stretch'), (x) => x < 11) // 206 pixels
  const logits = maskOf(first).logitsIn(place)
  for (let i = 0; i < logits.length; i++) {
    const x = 150 + ((i % SIDE) + 0.5) * 4
    if (Math.abs(x - 206.25) > 10) assert.equal(logits[i] > 0, x < 206.25)
  }
  const elsewhere = placementOf({ left: 400, top: 0, width: 128, height: 100 }, DRAWN, 128, 'stretch')
  assert.equal(maskOf(first).logitsIn(elsewhere), null)
  const second = maskOf(answered(place, (x) => x >= 16, first))
  assert.equal(second.logitsIn(place), second.logits)
  const whole = second.logitsIn(placement(600, 400, 128, 'stretch'))
  assert(whole[8 * SIDE + 2] > 0 && whole[10 * SIDE + 9] < 0 && whole[10 * SIDE + 13] > 0)
})

test('the resolution follows from the sides', () => {
  assert.equal(fineness(seen(0, 0, 1024, 1024), IMAGE), 6)
  assert.equal(nameOf(CROP), '128 × 100 at 150, 100')
})
