// Converts prompts to the decoder's inputs, and its outputs to masks and scores, as the contract in
// manifest.json requires. No DOM and no onnxruntime.

import { concatenated } from './arrays.js'
import { findRole, maskOutput, withRole } from './contract.js'
import { inInput } from './preprocessing.js'

/** @typedef {import('./contract.js').Manifest} Manifest */
/** @typedef {import('./contract.js').TensorInfo} TensorInfo */
/** @typedef {import('./preprocessing.js').Placement} Placement */
/** @typedef {import('./preprocessing.js').Prompt} Prompt */
/** @typedef {{ data: Float32Array, dims: readonly number[] }} Values */
/** @typedef {Record<string, Values>} Features the encoder's outputs, by role */
/** @typedef {Float32Array | Int32Array | BigInt64Array} Numbers */
/** @typedef {{ dtype: string, data: Numbers, dims: number[] }} Feed an input tensor */
/**
 * The decoder's answers to B prompts: masks `(B, K, M, M)`, logits; scores `(B, K)`, their predicted
 * IoU; objects `(B, 1)`, the object's score, if the contract has it.
 *
 * @typedef {{ masks: Values, scores: Values, objects: Values | null }} Answers
 */

/**
 * The decoder's inputs for prompts of one kind: equally many points each, all with a box or all without.
 *
 * @param {Manifest} manifest
 * @param {Features} features
 * @param {Prompt[]} prompts as many as the contract takes at once
 * @param {Placement} place
 * @param {Float32Array[] | null} previous the logits of a mask to refine, for each prompt
 * @returns {Record<string, Feed>} by the tensors' names
 * @throws {RangeError} when the prompts are of different kinds
 * @throws {Error} when the contract lacks a tensor for the prompts
 */
export function decoderFeeds(manifest, features, prompts, place, previous) {
  const { inputs } = manifest.decoder
  /** @type {Record<string, Feed>} */
  const feeds = {}
  /** @param {TensorInfo | undefined} tensor @param {number[]} numbers @param {number[]} dims */
  const add = (tensor, numbers, dims) => {
    if (tensor) feeds[tensor.name] = feed(tensor, numbers, dims)
  }

  for (const tensor of inputs) {
    const { data, dims } = features[tensor.role] ?? {}
    if (data) feeds[tensor.name] = { dtype: tensor.dtype, data, dims: [...dims] }
  }
  const { coords, labels, boxes } = promptTensors(manifest, prompts, place)
  add(withRole(inputs, 'point_coords'), coords.numbers, coords.dims)
  add(withRole(inputs, 'point_labels'), labels.numbers, labels.dims)
  add(findRole(inputs, 'boxes'), boxes.numbers, boxes.dims)
  const { canvas, size } = place
  const [height, width] = canvas ? [canvas, size] : [place.height, place.width]
  add(findRole(inputs, 'orig_im_size'), [height, width], [2])
  add(findRole(inputs, 'has_mask_input'), [previous ? 1 : 0], [1])
  const mask = findRole(inputs, 'mask_input')
  if (mask) feeds[mask.name] = maskInput(mask, inputs, prompts.length, previous)
  else if (previous) throw new Error('the decoder has no mask input, so it cannot refine a mask')
  return feeds
}

/**
 * Points, labels and boxes. If the contract has no boxes, a box is two points before the others.
 *
 * @param {Manifest} manifest
 * @param {Prompt[]} prompts
 * @param {Placement} place
 */
function promptTensors(manifest, prompts, place) {
  const { point_labels: labelOf } = manifest.preprocessing
  const takesBoxes = findRole(manifest.decoder.inputs, 'boxes') !== undefined
  const converted = prompts.map((prompt) => {
    const { points, box } = inInput(prompt, place)
    const coords = points.flatMap(({ x, y }) => [x, y])
    const labels = points.map(({ foreground }) =>
      foreground ? labelOf.foreground : labelOf.background,
    )
    if (box && !takesBoxes) {
      coords.unshift(...box)
      labels.unshift(labelOf.box_top_left, labelOf.box_bottom_right)
    }
    if (!box && manifest.prompts.padding_point) {
      coords.push(0, 0)
      labels.push(labelOf.padding)
    }
    return { coords, labels, box: takesBoxes && box ? box : [] }
  })
  const [{ labels: first, box }] = converted
  if (converted.some((each) => each.labels.length !== first.length || each.box.length !== box.length)) {
    throw new RangeError('prompts of different kinds cannot be decoded at once')
  }
  const [count, points] = [prompts.length, first.length]
  return {
    coords: {
      numbers: converted.flatMap((each) => each.coords),
      // With only boxes, transformers.js keeps the axis of prompts at 1, without points.
      dims: [takesBoxes && points === 0 ? 1 : count, points, 2],
    },
    labels: { numbers: converted.flatMap((each) => each.labels), dims: [count, points] },
    boxes: { numbers: converted.flatMap((each) => each.box), dims: [box.length ? count : 0, 4] },
  }
}

/**
 * The masks to refine; or empty masks, just one if the contract accepts one for all prompts.
 *
 * @param {TensorInfo} mask
 * @param {TensorInfo[]} inputs
 * @param {number} count of prompts
 * @param {Float32Array[] | null} previous
 * @returns {Feed}
 */
function maskInput(mask, inputs, count, previous) {
  const [batch, , height, width] = mask.shape
  const oneEach = batch !== 1 && batch === withRole(inputs, 'point_coords').shape[0]
  const masks = previous || oneEach ? count : 1
  const size = Number(height) * Number(width)
  const data = new Float32Array(masks * size)
  previous?.forEach((logits, index) => data.set(logits, index * size))
  return { dtype: mask.dtype, data, dims: [masks, 1, Number(height), Number(width)] }
}

/**
 * Numbers in a tensor's form: with its type, and with axes of length one before the given ones.
 *
 * @param {TensorInfo} tensor
 * @param {number[]} numbers
 * @param {number[]} dims
 * @returns {Feed}
 */
function feed({ name, dtype, shape }, numbers, dims) {
  const leading = Array(Math.max(0, shape.length - dims.length)).fill(1)
  return { dtype, data: typed(name, dtype, numbers), dims: [...leading, ...dims] }
}

/** @param {string} name @param {string} dtype @param {number[]} numbers */
function typed(name, dtype, numbers) {
  if (dtype === 'float32') return Float32Array.from(numbers)
  if (dtype === 'int32') return Int32Array.from(numbers)
  if (dtype === 'int64') return BigInt64Array.from(numbers, BigInt)
  throw new Error(`${name} has type ${dtype}; expected float32, int32 or int64`)
}

/**
 * The decoder's outputs, without a contract's leading axes of length one.
 *
 * @param {Manifest} manifest
 * @param {Record<string, Values>} outputs by name
 * @returns {Answers}
 */
export function answers(manifest, outputs) {
  const tensors = manifest.decoder.outputs
  /** @param {TensorInfo} tensor @param {number} rank */
  const values = ({ name }, rank) => {
    const { data, dims } = outputs[name]
    return { data, dims: dims.slice(-rank) }
  }
  const objects = findRole(tensors, 'object_score_logits')
  return {
    masks: values(maskOutput(manifest), 4),
    scores: values(withRole(tensors, 'iou_predictions'), 2),
    objects: objects ? values(objects, 2) : null,
  }
}

/** Answers to several groups of prompts, concatenated. @param {Answers[]} parts @returns {Answers} */
export function joined(parts) {
  if (parts.length === 1) return parts[0]
  /** @param {Values[]} values */
  const join = (values) => {
    const count = values.reduce((sum, { dims }) => sum + dims[0], 0)
    const data = concatenated(values.map((each) => each.data))
    return { data, dims: [count, ...values[0].dims.slice(1)] }
  }
  const objects = parts.flatMap(({ objects }) => objects ?? [])
  return {
    masks: join(parts.map(({ masks }) => masks)),
    scores: join(parts.map(({ scores }) => scores)),
    objects: objects.length ? join(objects) : null,
  }
}

/**
 * The best mask of a prompt.
 *
 * @param {Manifest} manifest
 * @param {ArrayLike<number>} scores predicted IoU of each mask
 * @returns {number} the index of the best mask
 */
export function best({ masks: { choice } }, scores) {
  let index = 0
  if (choice === 'ranked') return index
  for (let i = 1; i < scores.length; i++) if (scores[i] > scores[index]) index = i
  return index
}

/**
 * One mask of one prompt.
 *
 * @param {Values} masks `(B, K, M, M)`
 * @param {number} index of the mask
 * @param {number} [prompt]
 * @returns {Float32Array} `M` × `M` logits
 */
export function maskAt({ data, dims }, index, prompt = 0) {
  const size = dims[2] * dims[3]
  const start = (prompt * dims[1] + index) * size
  return data.slice(start, start + size)
}
