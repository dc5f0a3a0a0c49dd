// What is saved: labels as gray pixels, and COCO's annotations.
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { coco, grayPixels, runLengths } from '../page/image/export.js'

// Three columns and two rows.
const values = [0, 1, 1, 1, 0, 1]

test('run-lengths go down the columns and begin with what is outside', () => {
  assert.deepEqual(runLengths(values, 1, 3, 2), [1, 2, 1, 2])
  assert.deepEqual(runLengths([1, 1, 1, 1], 1, 2, 2), [0, 4])
  assert.deepEqual(runLengths([0, 0, 0, 0], 1, 2, 2), [4])
})

test('run-lengths add up to all pixels, and those inside to the area', () => {
  const random = Uint8Array.from({ length: 35 }, (_, i) => (i * i) % 3 & 1)
  const counts = runLengths(random, 1, 7, 5)
  assert.equal(counts.reduce((sum, count) => sum + count, 0), 35)
  const inside = counts.reduce((sum, count, index) => sum + (index % 2 ? count : 0), 0)
  assert.equal(inside, random.filter(Boolean).length)
})

test("COCO's annotation has the size by rows, the area, the box and a crowd's run-lengths", () => {
  const region = { number: 4, category: 'cell', values, inside: 1 }
  const found = coco('cells.png', 3, 2, [region])
  assert.deepEqual(found.images, [{ id: 1, file_name: 'cells.png', width: 3, height: 2 }])
  assert.deepEqual(found.annotations, [
    {
      id: 4,
      image_id: 1,
      category_id: 1,
      segmentation: { size: [2, 3], counts: [1, 2, 1, 2] },
      area: 4,
      bbox: [0, 0, 3, 2],
      iscrowd: 1,
    },
  ])
  assert.deepEqual(found.categories, [{ id: 1, name: 'cell', supercategory: '' }])
})

test('objects of one name share a category', () => {
  const names = ['cell', 'debris', 'cell']
  const regions = names.map((category, i) => ({ number: i + 1, category, values, inside: 1 }))
  const { annotations, categories } = coco('a.png', 3, 2, regions)
  assert.deepEqual(annotations.map((each) => each.category_id), [1, 2, 1])
  assert.deepEqual(categories.map(({ id, name }) => [id, name]), [[1, 'cell'], [2, 'debris']])
})

test('an object without a pixel has no annotation', () => {
  const regions = [{ number: 1, category: 'cell', values: [0, 0], inside: 1 }]
  assert.deepEqual(coco('a.png', 2, 1, regions), {
    images: [{ id: 1, file_name: 'a.png', width: 2, height: 1 }],
    annotations: [],
    categories: [],
  })
})

test('a box is of its own object where several are in one picture of labels', () => {
  const labels = [2, 0, 5, 5]
  const { annotations } = coco('a.png', 2, 2, [
    { number: 2, category: 'object', values: labels, inside: 2 },
    { number: 5, category: 'object', values: labels, inside: 5 },
  ])
  assert.deepEqual(annotations.map(({ bbox }) => bbox), [[0, 0, 1, 1], [0, 1, 2, 1]])
})

test('a pixel of labels is as bright as its number', () => {
  assert.deepEqual([...grayPixels([0, 255])], [0, 0, 0, 255, 255, 255, 255, 255])
  assert.deepEqual([...grayPixels([1], 0xff)], [255, 255, 255, 255])
})

test('a number above 255 is refused in a sentence', () => {
  assert.throws(() => grayPixels([256]), /Object 256 .* ends at 255\. Save COCO/)
})
