// What a runtime feeds the graphs of a model, and under which names.
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { decode, encode } from '../page/shared/model.js'
import { placement } from '../page/shared/preprocessing.js'
import { graphRunner } from '../page/shared/tracking-graphs.js'
import { padded, points } from './contracts.js'

/** @typedef {import('../page/shared/preprocessing.js').Prompt} Prompt */

class Tensor {
  /** @param {string} type @param {any} data @param {readonly number[]} dims */
  constructor(type, data, dims) {
    Object.assign(this, { type, data, dims })
  }
}

const ort = /** @type {any} */ ({ Tensor })
const place = placement(8, 4, 8, 'stretch')
const features = { image_embed: { data: new Float32Array(16), dims: [1, 4, 2, 2] } }

/** @param {number} x @returns {Prompt} */
const click = (x) => ({ points: [{ x, y: 1, foreground: true }], box: null })

/** A decoder that answers with the x of each prompt, and the inputs that it was fed. */
function decoder() {
  /** @type {any[]} */
  const runs = []
  const session = /** @type {any} */ ({
    async run(/** @type {any} */ feeds) {
      runs.push(feeds)
      const [count, each] = feeds.point_coords.dims
      const xs = Array.from({ length: count }, (_, i) => feeds.point_coords.data[i * each * 2])
      const masks = Float32Array.from(xs.flatMap((x) => Array(12).fill(x)))
      return {
        masks: { data: masks, dims: [count, 3, 2, 2] },
        iou_predictions: { data: new Float32Array(3 * count), dims: [count, 3] },
      }
    },
  })
  return { session, runs }
}

const masks = [3, 5, 7].map((value) => new Float32Array(4).fill(value))

test('a decoder for one prompt gets each prompt with its own mask; answers keep their order', async () => {
  const { session, runs } = decoder()
  const prompts = [click(3), click(5), click(7)]
  const found = await decode(ort, session, padded, features, prompts, place, masks)
  assert.deepEqual(runs.map(({ point_coords }) => point_coords.dims[0]), [1, 1, 1])
  assert.deepEqual(runs.map(({ mask_input }) => mask_input.data[0]), [3, 5, 7])
  assert.deepEqual(found.masks.dims, [3, 3, 2, 2])
  assert.deepEqual([0, 12, 24].map((at) => found.masks.data[at]), [3, 5, 7])
})

test('a decoder for many prompts gets all at once', async () => {
  const { session, runs } = decoder()
  const found = await decode(ort, session, points, features, [click(3), click(5)], place, null)
  assert.equal(runs.length, 1)
  assert.deepEqual([found.masks.data[0], found.masks.data[12]], [3, 5])
})

test('the encoder is fed under the name of its contract, and answers by role', async () => {
  /** @type {any} */
  let fed
  const manifest = structuredClone(points)
  manifest.encoder.outputs[0].name = 'embedding'
  const session = /** @type {any} */ ({
    async run(/** @type {any} */ feeds) {
      fed = feeds
      return { embedding: { data: Float32Array.of(1), dims: [1] } }
    },
  })
  const found = await encode(ort, session, manifest, new Uint8ClampedArray(256), place)
  assert.deepEqual(Object.keys(fed), ['pixels'])
  assert.deepEqual(fed.pixels.dims, [1, 3, 8, 8])
  assert.deepEqual(found, { image_embed: { data: Float32Array.of(1), dims: [1] } })
})

test('an encoder for a canvas is fed a canvas of the shape in its contract', async () => {
  /** @type {any} */
  let fed
  const manifest = structuredClone(points)
  manifest.encoder.inputs[0].shape = [2, 3, 3]
  const session = /** @type {any} */ ({
    async run(/** @type {any} */ feeds) {
      fed = feeds
      return { image_embed: { data: Float32Array.of(1), dims: [1] } }
    },
  })
  const onCanvas = placement(3, 1, 3, 'canvas')
  await encode(ort, session, manifest, new Uint8ClampedArray(12).fill(7), onCanvas)
  assert.deepEqual(fed.pixels.dims, [2, 3, 3])
  assert.deepEqual([...fed.pixels.data], [...Array(9).fill(7), ...Array(9).fill(0)])
})

test('a tracking graph is fed only the inputs that it has, by name', async () => {
  /** @type {any} */
  let fed
  const session = /** @type {any} */ ({
    inputNames: ['memories', 'image_embed'],
    async run(/** @type {any} */ feeds) {
      fed = feeds
      return { memory: { data: Float32Array.of(1), dims: [1] } }
    },
  })
  const tensor = (/** @type {number} */ value) => ({
    dtype: 'float32', data: Float32Array.of(value), dims: [1],
  })
  const run = graphRunner(ort, () => session)
  const feeds = { pointer_times: tensor(1), image_embed: tensor(2), memories: tensor(3) }
  assert.deepEqual(await run('memory_attention', feeds), {
    memory: { data: Float32Array.of(1), dims: [1] },
  })
  assert.deepEqual(Object.keys(fed), ['memories', 'image_embed'])
  assert.deepEqual([fed.memories.data[0], fed.image_embed.data[0]], [3, 2])
})
