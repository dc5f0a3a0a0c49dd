// The decoder's inputs, and how its answers are read, for each contract.
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { inputSize, refines } from '../page/shared/contract.js'
import { answers, best, decoderFeeds, joined, maskAt } from '../page/shared/feeds.js'
import { placement } from '../page/shared/preprocessing.js'
import { imageSize, padded, points, pointsAndBoxes } from './contracts.js'

/** @typedef {import('../page/shared/preprocessing.js').Prompt} Prompt */

// Twice as wide as high: a pixel is one input pixel wide and two high.
const place = placement(8, 4, 8, 'stretch')
const features = { image_embed: { data: new Float32Array(16), dims: [1, 4, 2, 2] } }
/** @type {Prompt} */
const click = { points: [{ x: 3, y: 1, foreground: true }], box: null }
/** @type {Prompt} */
const other = { points: [{ x: 5, y: 2, foreground: false }], box: null }
/** @type {Prompt} */
const box = { points: [], box: [6, 3, 2, 1] }
/** @type {Prompt} */
const both = { points: click.points, box: box.box }

/**
 * @param {import('../page/shared/contract.js').Manifest} manifest
 * @param {Prompt[]} prompts
 * @param {Float32Array[] | null} [previous]
 */
const fed = (manifest, prompts, previous = null) =>
  decoderFeeds(manifest, features, prompts, place, previous)

/** @param {import('../page/shared/feeds.js').Feed} feed */
const plain = ({ data, dims }) => [[...data].map(Number), dims]

test('tensors are fed under the names of the contract, not of their roles', () => {
  for (const manifest of [points, padded, pointsAndBoxes, imageSize]) {
    const names = manifest.decoder.inputs.map(({ name }) => name)
    assert.deepEqual(Object.keys(fed(manifest, [click])).sort(), names.sort())
  }
  assert.equal(fed(pointsAndBoxes, [click])['image_embeddings.2'].data, features.image_embed.data)
})

test('without boxes in the contract, a box is two points with labels 2 and 3, before the others', () => {
  const feeds = fed(points, [both])
  assert.deepEqual(plain(feeds.point_coords), [[2, 2, 6, 6, 3, 2], [1, 3, 2]])
  assert.deepEqual(plain(feeds.point_labels), [[2, 3, 1], [1, 3]])
})

test('several prompts are fed along the first axis, in their order', () => {
  const feeds = fed(points, [click, other])
  assert.deepEqual(plain(feeds.point_coords), [[3, 2, 5, 4], [2, 1, 2]])
  assert.deepEqual(plain(feeds.point_labels), [[1, 0], [2, 1]])
})

test('prompts of several kinds cannot be fed at once', () => {
  const more = { points: [...click.points, ...other.points], box: null }
  for (const manifest of [points, pointsAndBoxes]) {
    assert.throws(() => fed(manifest, [click, more]), RangeError)
    assert.throws(() => fed(manifest, [click, both]), RangeError)
  }
})

test('a padding point is appended if the contract requires it and there is no box', () => {
  const feeds = fed(padded, [click])
  assert.deepEqual(plain(feeds.point_coords), [[3, 2, 0, 0], [1, 2, 2]])
  assert.deepEqual(plain(feeds.point_labels), [[1, -1], [1, 2]])
  assert.deepEqual(plain(fed(padded, [box]).point_labels), [[2, 3], [1, 2]])
})

test('points alone: the axis of boxes has length zero, and labels are int64', () => {
  const feeds = fed(pointsAndBoxes, [click, other])
  assert.deepEqual(plain(feeds.input_points), [[3, 2, 5, 4], [1, 2, 1, 2]])
  assert.deepEqual(plain(feeds.input_labels), [[1, 0], [1, 2, 1]])
  assert.equal(feeds.input_labels.dtype, 'int64')
  assert.ok(feeds.input_labels.data instanceof BigInt64Array)
  assert.deepEqual(plain(feeds.input_boxes), [[], [1, 0, 4]])
})

test('boxes alone: the axes of points have length zero, as transformers.js makes them', () => {
  const feeds = fed(pointsAndBoxes, [box, box])
  assert.deepEqual(plain(feeds.input_points), [[], [1, 1, 0, 2]])
  assert.deepEqual(plain(feeds.input_labels), [[], [1, 2, 0]])
  assert.deepEqual(plain(feeds.input_boxes), [[2, 2, 6, 6, 2, 2, 6, 6], [1, 2, 4]])
})

test('a box and a point are each fed to their own input', () => {
  const feeds = fed(pointsAndBoxes, [both])
  assert.deepEqual(plain(feeds.input_points), [[3, 2], [1, 1, 1, 2]])
  assert.deepEqual(plain(feeds.input_labels), [[1], [1, 1, 1]])
  assert.deepEqual(plain(feeds.input_boxes), [[2, 2, 6, 6], [1, 1, 4]])
})

test('the size of the image is its height, then its width, in int64', () => {
  const { orig_im_size: size } = fed(imageSize, [click])
  assert.deepEqual(plain(size), [[4, 8], [2]])
  assert.ok(size.data instanceof BigInt64Array)
})

test('the size of an image on a canvas is the canvas\'s', () => {
  const onCanvas = placement(8, 4, 1024, 'canvas')
  const { orig_im_size: size } = decoderFeeds(imageSize, features, [click], onCanvas, null)
  assert.deepEqual(plain(size), [[684, 1024], [2]])
})

test('without a mask to refine, one empty mask serves all prompts', () => {
  const feeds = fed(points, [click, other])
  assert.deepEqual(plain(feeds.mask_input), [[0, 0, 0, 0], [1, 1, 2, 2]])
  assert.deepEqual(plain(feeds.has_mask_input), [[0], [1]])
})

test('there is an empty mask for each prompt if the contract requires it', () => {
  const manifest = structuredClone(points)
  manifest.decoder.inputs[3].shape[0] = 'num_prompts'
  assert.deepEqual(fed(manifest, [click, other]).mask_input.dims, [2, 1, 2, 2])
})

test('each prompt refines its own mask', () => {
  const masks = [Float32Array.of(1, 2, 3, 4), Float32Array.of(5, 6, 7, 8)]
  const feeds = fed(points, [click, other], masks)
  assert.deepEqual(plain(feeds.mask_input), [[1, 2, 3, 4, 5, 6, 7, 8], [2, 1, 2, 2]])
  assert.deepEqual(plain(feeds.has_mask_input), [[1], [1]])
})

test('a mask is not refined if the contract has no mask input', () => {
  assert.ok(refines(points))
  assert.ok(!refines(pointsAndBoxes))
  assert.throws(() => fed(pointsAndBoxes, [click], [new Float32Array(4)]), /no mask input/)
})

test('an unknown type is refused with the name of the tensor', () => {
  const manifest = structuredClone(points)
  manifest.decoder.inputs[2].dtype = 'float64'
  assert.throws(() => fed(manifest, [click]), /point_labels has type float64/)
})

test('a manifest without roles is refused', () => {
  const old = structuredClone(points)
  for (const tensor of old.encoder.inputs) delete (/** @type {any} */ (tensor).role)
  assert.equal(inputSize(points), 8)
  assert.throws(() => inputSize(old), /no tensor with the role image; deploy the model again/)
})

/** @param {number} count @param {number[]} dims */
const values = (count, dims) => ({ data: Float32Array.from(Array(count).keys()), dims })

test('answers are the masks and scores of each prompt, without an axis for the image', () => {
  const found = answers(pointsAndBoxes, {
    iou_scores: values(6, [1, 2, 3]),
    pred_masks: values(24, [1, 2, 3, 2, 2]),
    object_score_logits: values(2, [1, 2, 1]),
  })
  assert.deepEqual(found.masks.dims, [2, 3, 2, 2])
  assert.deepEqual(found.scores.dims, [2, 3])
  assert.deepEqual(found.objects?.dims, [2, 1])
  assert.deepEqual([...maskAt(found.masks, 1, 1)], [16, 17, 18, 19])
})

test('from masks in two sizes, those of low resolution are taken', () => {
  const found = answers(imageSize, {
    masks: values(128, [1, 4, 4, 8]),
    iou_predictions: values(4, [1, 4]),
    low_res_masks: values(16, [1, 4, 2, 2]),
  })
  assert.deepEqual(found.masks.dims, [1, 4, 2, 2])
  assert.equal(found.objects, null)
})

test('answers from single runs are joined as if from one run', () => {
  const one = { masks: values(12, [1, 3, 2, 2]), scores: values(3, [1, 3]), objects: null }
  const other = { ...one, scores: { data: Float32Array.of(7, 8, 9), dims: [1, 3] } }
  const two = joined([one, other])
  assert.deepEqual(two.masks.dims, [2, 3, 2, 2])
  assert.deepEqual([...two.scores.data], [0, 1, 2, 7, 8, 9])
  assert.deepEqual([...maskAt(two.masks, 0, 1)], [0, 1, 2, 3])
})

test('the best mask has the highest score, or is the first of ranked masks', () => {
  assert.equal(best(points, [0.2, 0.9, 0.5]), 1)
  assert.equal(best(points, [0.2]), 0)
  const ranked = { ...points, masks: { choice: /** @type {const} */ ('ranked') } }
  assert.equal(best(ranked, [0.8, 0.8001, 0.5]), 0)
})
