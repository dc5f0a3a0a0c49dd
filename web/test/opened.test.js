// Masks from saved files: labels in PNGs and other images, COCO.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { deflateSync } from 'node:zlib'

import { addFrame, addImage, Coco, grayPng } from '../page/image/export.js'
import { fromCoco, fromLabels, fromPng, sameSize } from '../page/image/opened.js'
import { PixelMask } from '../page/image/pixel-mask.js'

const image = { width: 4, height: 3, count: 1, fileOf: () => 'cells.png' }
// prettier-ignore
const labels = [
  1, 1, 0, 7,
  1, 1, 7, 0,
  0, 0, 0, 300,
]

/** @param {Map<number, import('../page/image/pixel-mask.js').Pixels>} objects */
function drawn(objects) {
  const found = new Uint16Array(12)
  for (const [number, pixels] of objects) {
    const { region, values } = new PixelMask(pixels).over(image)
    for (let i = 0, y = region.top; y < region.bottom; y++) {
      for (let x = region.left; x < region.right; x++) if (values[i++]) found[4 * y + x] = number
    }
  }
  return [...found]
}

/**
 * Fills rectangles whose first corner is the upper right one.
 *
 * @param {number[][]} polygons
 * @param {import('../page/image/masks.js').Region} region
 */
function fill(polygons, region) {
  const across = region.right - region.left
  const filled = new Uint8Array(across * (region.bottom - region.top))
  for (const [right, top, , bottom, left] of polygons) {
    for (let y = top; y < bottom; y++) {
      const row = (y - region.top) * across - region.left
      filled.fill(1, row + left, row + right)
    }
  }
  return filled
}

const parts = () =>
  [...fromLabels(labels, image)].map(([number, pixels]) => {
    return { number, category: number === 7 ? 'nucleus' : 'object', part: new PixelMask(pixels).over(image) }
  })

test('each label is an object with exactly its pixels, in the order of the numbers', () => {
  const objects = fromLabels(labels, image)
  assert.deepEqual([...objects.keys()], [1, 7, 300])
  assert.deepEqual(drawn(objects), labels)
})

test('a saved PNG has the same labels, with 8 and with 16 bits', async () => {
  for (const values of [labels, labels.map((each) => Math.min(each, 9))]) {
    const png = await fromPng(await (await grayPng(values, image)).arrayBuffer())
    assert.deepEqual({ ...png, labels: [...png.labels] }, { width: 4, height: 3, labels: values })
  }
})

/** A PNG of one row of 8 bits after another, with these filters. @param {number[][]} rows */
function png(rows, kind = 0) {
  const chunk = (/** @type {string} */ name, /** @type {Uint8Array} */ data) => {
    const length = Buffer.alloc(4)
    length.writeUInt32BE(data.length)
    return Buffer.concat([length, Buffer.from(name), data, Buffer.alloc(4)])
  }
  const header = Buffer.alloc(13)
  header.writeUInt32BE(rows[0].length - 1)
  header.writeUInt32BE(rows.length, 4)
  header.set([8, kind], 8)
  const data = deflateSync(Buffer.from(rows.flat()))
  const chunks = [
    chunk('IHDR', header),
    chunk('IDAT', data.subarray(0, 5)),
    chunk('IDAT', data.subarray(5)),
    chunk('IEND', Buffer.alloc(0)),
  ]
  const file = Buffer.concat([Buffer.from([137, 80, 78, 71, 13, 10, 26, 10]), ...chunks])
  return file.buffer.slice(file.byteOffset, file.byteOffset + file.byteLength)
}

test('a PNG of another program keeps its values under all filters', async () => {
  const rows = [[1, 5, 1, 1], [2, 1, 1, 1], [3, 1, 1, 1], [4, 1, 1, 1], [0, 9, 9, 9]]
  // prettier-ignore
  const expected = [
    5, 6, 7,
    6, 7, 8,
    4, 6, 8,
    5, 7, 9,
    9, 9, 9,
  ]
  assert.deepEqual([...(await fromPng(png(rows))).labels], expected)
})

test('a colour image is refused with the expected kind', async () => {
  await assert.rejects(fromPng(png([[0, 1, 1, 1]], 2)), /Expected one channel .* TIFF/)
  await assert.rejects(fromPng(new ArrayBuffer(50)), /not a PNG/)
})

test('saved COCO has the same objects and names, from polygons and run-lengths', () => {
  for (const runs of [false, true]) {
    const data = new Coco(image, runs)
    addImage(data, 'cells.png', parts())
    const { frames, names } = fromCoco(JSON.parse(JSON.stringify(data)), image, fill)
    assert.deepEqual([...frames.keys()], [0])
    assert.deepEqual([...names], [[1, ''], [7, 'nucleus'], [300, '']])
    assert.deepEqual(drawn(/** @type {any} */ (frames.get(0))), labels)
  }
})

test('the objects of a stack come back on their frames', () => {
  const stack = { ...image, count: 3, fileOf: (/** @type {number} */ frame) => `t-${frame}.png` }
  const data = new Coco(stack, true)
  const [one, seven] = parts()
  for (const [frame, regions] of [[one], [], [one, seven]].entries()) addFrame(data, `t-${frame}.png`, regions)
  const found = fromCoco(JSON.parse(JSON.stringify(data)), stack, fill)
  assert.deepEqual([...found.frames].map(([frame, objects]) => [frame, [...objects.keys()]]), [[0, [1]], [2, [1, 7]]])
})

test('files of another image or size, or other than COCO, are refused', () => {
  const data = new Coco({ width: 5, height: 3 })
  addImage(data, 'cells.png', [])
  assert.throws(() => fromCoco(JSON.parse(JSON.stringify(data)), image, fill), /5 × 3 pixels, .* 4 × 3/)
  const stack = { ...image, count: 2 }
  const others = { images: [{ id: 1, file_name: 'a.png', width: 4, height: 3 }], annotations: [] }
  assert.throws(() => fromCoco(others, stack, fill), /masks of a\.png, but none of cells\.png/)
  assert.throws(() => fromCoco({ pages: [] }, image, fill), /with a list of images/)
  assert.throws(() => sameSize({ width: 1, height: 1 }, image), /open the image that the masks belong to/)
})

test('compressed run-lengths are refused, with a way to convert them', () => {
  const images = [{ id: 1, file_name: 'cells.png', width: 4, height: 3 }]
  const annotations = [{ id: 1, image_id: 1, category_id: 1, segmentation: { counts: 'PP' } }]
  assert.throws(() => fromCoco({ images, annotations }, image, fill), /annToMask/)
})
