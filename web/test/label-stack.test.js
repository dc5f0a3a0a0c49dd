// A TIFF of labels, read back by another program.
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { fromArrayBuffer } from 'geotiff'

import { LabelStack } from '../page/image/label-stack.js'

test('each page has its labels, of 16 bits', async () => {
  const stack = new LabelStack(3, 3, 2)
  const pages = [[0, 1, 2, 3, 300, 65535], [0, 0, 0, 0, 0, 0], [7, 0, 0, 0, 0, 8]]
  for (const page of pages) stack.add(page)
  const tiff = await fromArrayBuffer(await stack.file.arrayBuffer())
  assert.equal(await tiff.getImageCount(), 3)
  for (const [index, page] of pages.entries()) {
    const image = await tiff.getImage(index)
    assert.deepEqual([image.getWidth(), image.getHeight()], [3, 2])
    const [labels] = /** @type {Uint16Array[]} */ (await image.readRasters())
    assert(labels instanceof Uint16Array)
    assert.deepEqual([...labels], page)
  }
})

test('a stack too large for a TIFF is refused before anything is saved', () => {
  assert.throws(() => new LabelStack(600, 2048, 2048), /600 pages .* more than the 4 GiB that a TIFF can have/)
})
