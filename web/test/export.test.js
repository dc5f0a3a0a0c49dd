// Saved files: PNGs with one channel, and COCO annotations.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { inflateSync } from 'node:zlib'

import { contours } from '../page/image/contours.js'
import { addFrame, addImage, Coco, grayPng, runLengths } from '../page/image/export.js'

const image = { width: 3, height: 2 }

/**
 * A part of an image, from rows of `.` and `#`.
 *
 * @param {string[]} rows
 * @param {number} [left]
 * @param {number} [top]
 */
function part(rows, left = 0, top = 0) {
  const values = Uint8Array.from(rows.join(''), (each) => Number(each === '#'))
  return { region: { left, top, right: left + rows[0].length, bottom: top + rows.length }, values }
}

/** @param {Coco} data */
const json = (data) => JSON.parse(JSON.stringify(data))

/** @param {string} category @param {number} [number] */
const region = (category, number = 1) => ({ number, category, part: part(['.##', '#.#']) })

test('run-lengths go down the columns and begin with the background', () => {
  assert.deepEqual(runLengths(part(['.##', '#.#']), image), [1, 2, 1, 2])
  assert.deepEqual(runLengths(part(['##', '##']), { width: 2, height: 2 }), [0, 4])
  assert.deepEqual(runLengths(part(['..', '..']), { width: 2, height: 2 }), [4])
})

test('run-lengths cover the whole image', () => {
  assert.deepEqual(runLengths(part(['#'], 1, 1), { width: 3, height: 4 }), [5, 1, 6])
  assert.deepEqual(runLengths(part(['##', '##'], 1, 0), { width: 3, height: 2 }), [2, 4])
})

test('a polygon goes along the edges of the pixels', () => {
  assert.deepEqual(contours(part(['##'], 4, 7)), [[6, 7, 6, 8, 4, 8, 4, 7]])
  assert.deepEqual(contours(part(['#.', '##'])), [[1, 0, 1, 1, 2, 1, 2, 2, 0, 2, 0, 0]])
})

test('each piece is its own polygon, even if pieces touch at a corner', () => {
  assert.deepEqual(contours(part(['#.', '.#'])), [[1, 0, 1, 1, 0, 1, 0, 0], [2, 1, 2, 2, 1, 2, 1, 1]])
})

test('a mask with a hole has no polygons', () => {
  assert.equal(contours(part(['###', '#.#', '###'])), null)
  assert.notEqual(contours(part(['##.', '#.#', '###'])), null) // it is open at a corner
})

test("a COCO annotation has an object's polygon, area and box, and is not a crowd", () => {
  const data = new Coco({ width: 9, height: 8 })
  addImage(data, 'cells.png', [{ number: 4, category: 'cell', part: part(['.##.', '....'], 2, 5) }])
  const { images, annotations, categories } = json(data)
  assert.deepEqual(images, [{ id: 1, file_name: 'cells.png', width: 9, height: 8 }])
  const segmentation = [[5, 5, 5, 6, 3, 6, 3, 5]]
  assert.deepEqual(annotations, [
    { id: 4, image_id: 1, category_id: 1, segmentation, area: 2, bbox: [3, 5, 2, 1], iscrowd: 0 },
  ])
  assert.deepEqual(categories, [{ id: 1, name: 'cell', supercategory: '' }])
})

test('an object with a hole has run-lengths, as all have on request; none is a crowd', () => {
  for (const [rows, runs] of /** @type {const} */ ([
    [['###', '#.#', '###'], false],
    [['###', '###', '###'], true],
  ])) {
    const data = new Coco({ width: 3, height: 3 }, runs)
    addImage(data, 'a.png', [{ number: 1, category: 'cell', part: part([...rows]) }])
    const [{ segmentation, iscrowd }] = json(data).annotations
    assert.deepEqual(segmentation.size, [3, 3])
    assert.equal(iscrowd, 0)
  }
})

test('objects of one name share a category', () => {
  const data = new Coco(image)
  addImage(data, 'a.png', ['cell', 'debris', 'cell'].map((name, i) => region(name, i + 1)))
  const { annotations, categories } = json(data)
  assert.deepEqual(
    annotations.map((/** @type {any} */ each) => [each.id, each.category_id]),
    [[1, 1], [2, 2], [3, 1]],
  )
  assert.deepEqual(
    categories.map(({ id, name }) => [id, name]),
    [[1, 'cell'], [2, 'debris']],
  )
})

test('an object without a pixel has no annotation', () => {
  const data = new Coco({ width: 2, height: 1 })
  addImage(data, 'a.png', [{ number: 1, category: 'cell', part: part(['..']) }])
  assert.deepEqual(json(data).annotations, [])
  assert.deepEqual(json(data).categories, [])
})

test('each frame is an image, and an object keeps its number', () => {
  const data = new Coco(image)
  for (const name of ['t-0001.png', 't-0002.png']) addFrame(data, name, [region('cell', 7)])
  const { images, annotations } = json(data)
  assert.deepEqual(
    images.map((/** @type {any} */ each) => [each.id, each.file_name, each.frame_index]),
    [[1, 't-0001.png', 0], [2, 't-0002.png', 1]],
  )
  assert.deepEqual(
    annotations.map((/** @type {any} */ each) => [each.id, each.image_id, each.track_id]),
    [[1, 1, 7], [2, 2, 7]],
  )
})

/** Depth, kind of colours and rows of a PNG. @param {Blob} png */
async function readPng(png) {
  const bytes = Buffer.from(await png.arrayBuffer())
  const length = bytes.readUInt32BE(33)
  assert.equal(bytes.toString('latin1', 37, 41), 'IDAT')
  return { depth: bytes[24], colors: bytes[25], rows: [...inflateSync(bytes.subarray(41, 41 + length))] }
}

test('a PNG has one channel, of 8 bits up to 255 and of 16 above', async () => {
  const bytes = await readPng(await grayPng([0, 1, 2, 3, 4, 255], image))
  assert.deepEqual(bytes, { depth: 8, colors: 0, rows: [0, 0, 1, 2, 0, 3, 4, 255] })
  const words = await readPng(await grayPng([0, 1, 256, 65535], { width: 2, height: 2 }))
  assert.deepEqual(words, { depth: 16, colors: 0, rows: [0, 0, 0, 0, 1, 0, 1, 0, 255, 255] })
})
