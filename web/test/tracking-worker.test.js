// How prompts reach the tracker, also after undo, and how tracking uses them.
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { Tracker } from '../page/shared/tracker.js'
import { promptOf, Tracking } from '../page/frames/tracking-worker.js'
import { published as constants } from './published.js'

/** A sequence with this many frames, over graphs whose decoder records its points. */
function tracking(count = 6) {
  /** @type {{ frame: number, points: number, refines: boolean }[]} */
  const decoded = []
  const values = (/** @type {number} */ value, /** @type {number[]} */ dims) => ({
    data: new Float32Array(dims.reduce((product, each) => product * each, 1)).fill(value),
    dims,
  })
  const tracker = new Tracker({
    constants,
    frames: { count, width: 8, height: 8 },
    store: new Map(),
    features: async (frame) => ({
      image_embed: values(frame, [1, 2, 1, 1]),
      high_res_feats_0: values(frame, [1, 1, 2, 2]),
      high_res_feats_1: values(frame, [1, 1, 1, 1]),
    }),
    async run(graph, { image_embed, point_labels, has_mask_input, high_res_feats_0 }) {
      if (graph === 'tracking_decoder') {
        const points = [...point_labels.data].filter((label) => Number(label) >= 0).length
        const refines = has_mask_input.data[0] === 1
        decoded.push({ frame: Number(high_res_feats_0.data[0]), points, refines })
      }
      const points = decoded.at(-1)?.points ?? 0
      return {
        conditioned_embed: values(Number(image_embed.data[0]), [1, 2, 1, 1]),
        low_res_masks: values(points, [1, 1, 2, 2]),
        iou_predictions: values(0.5, [1, 1]),
        object_score_logits: values(3, [1, 1]),
        object_pointer: values(0, [1, 2]),
        memory: values(0, [1, 3]),
      }
    },
  })
  return { tracking: new Tracking(tracker), tracker, decoded }
}

/**
 * This many prompts, each with one more point.
 *
 * @param {number} frame
 * @param {number} clicks
 * @param {number} [id]
 * @returns {import('../page/frames/tracking-worker.js').ObjectPrompts}
 */
function prompts(frame, clicks, id = 1) {
  const points = Array.from({ length: clicks }, (_, x) => ({ x, y: 1, foreground: true }))
  const each = points.map((_, index) => ({ points: points.slice(0, index + 1), box: null }))
  return { frame, id, prompts: each }
}

/** @param {Tracking} tracking @param {Partial<Parameters<Tracking['track']>[0]>} args */
async function tracked(tracking, args) {
  const parts = []
  const all = { prompts: [], from: 0, reverse: false, ...args }
  for await (const { frame, masks } of tracking.track(all, () => false)) {
    parts.push([frame, ...masks.map(({ logits }) => logits[0])])
  }
  return parts
}

test("a box's corners are sorted; points are pairs with a label each", () => {
  const points = [{ x: 1, y: 2, foreground: true }, { x: 3, y: 4, foreground: false }]
  assert.deepEqual(promptOf({ points, box: [9, 8, 5, 6] }), {
    points: [[1, 2], [3, 4]],
    labels: [1, 0],
    box: [5, 6, 9, 8],
  })
})

test('a further click is one run of the decoder, which refines the mask', async () => {
  const { tracking: film, decoded } = tracking()
  await film.prompt(prompts(2, 1))
  const mask = await film.prompt(prompts(2, 2))
  assert.deepEqual(decoded, [
    { frame: 2, points: 1, refines: false },
    { frame: 2, points: 2, refines: true },
  ])
  assert.deepEqual([mask.id, mask.logits[0], mask.score], [1, 2, 3])
})

test('a prompt that is repeated is not decoded again', async () => {
  const { tracking: film, decoded } = tracking()
  await film.prompt(prompts(2, 2))
  assert.equal((await film.prompt(prompts(2, 2))).logits[0], 2)
  assert.equal(decoded.length, 2)
})

test('after an undo the mask is decoded from the remaining prompt, and refines nothing else', async () => {
  const { tracking: film, decoded } = tracking()
  await film.prompt(prompts(2, 2))
  await tracked(film, { prompts: [prompts(2, 2)], from: 2 })
  decoded.length = 0
  assert.equal((await film.prompt(prompts(2, 1))).logits[0], 1)
  assert.deepEqual(decoded, [{ frame: 2, points: 1, refines: false }])
})

test('an object undone since is not tracked', async () => {
  const { tracking: film, tracker } = tracking()
  await film.prompt(prompts(0, 1, 1))
  await film.prompt(prompts(0, 1, 2))
  const parts = await tracked(film, { prompts: [prompts(0, 1, 2)] })
  assert.deepEqual([...tracker.objects.keys()], [2])
  assert.equal(parts[3].length, 2) // the frame, and one object
})

test('prompts of another model are given before tracking starts', async () => {
  const { tracking: film } = tracking()
  const parts = await tracked(film, { prompts: [prompts(0, 2)] })
  assert.deepEqual(parts.map(([frame]) => frame), [0, 1, 2, 3, 4, 5])
  assert.equal(parts[0][1], 2)
})

test('without a prompt there is nothing to track', async () => {
  const { tracking: film } = tracking()
  await assert.rejects(tracked(film, {}), /Nothing to track/)
})

test('tracking from a corrected frame starts after it, and keeps the correction', async () => {
  const { tracking: film, tracker } = tracking()
  await tracked(film, { prompts: [prompts(0, 1)] })
  await film.prompt(prompts(3, 2))
  const parts = await tracked(film, { prompts: [prompts(0, 1), prompts(3, 2)], from: 3 })
  assert.deepEqual(parts, [[4, 0], [5, 0]])
  assert.equal((await tracker.result(3, 1))?.lowResMasks[0], 2)
})

test('a correction that tracking passes again is repeated', async () => {
  const { tracking: film, tracker } = tracking()
  const both = [prompts(0, 1), prompts(3, 2)]
  await tracked(film, { prompts: both.slice(0, 1) })
  await film.prompt(both[1])
  await tracked(film, { prompts: both, from: 3 })
  const parts = await tracked(film, { prompts: both })
  assert.deepEqual(parts, [[0, 1], [1, 0], [2, 0], [3, 2], [4, 0], [5, 0]])
  assert.equal((await tracker.result(3, 1))?.lowResMasks[0], 2)
})

test('tracking back from a correction on the second frame reaches the first', async () => {
  const { tracking: film } = tracking()
  const both = [prompts(4, 1), prompts(1, 2)]
  await tracked(film, { prompts: both.slice(0, 1), from: 4, reverse: true })
  await film.prompt(both[1])
  const parts = await tracked(film, { prompts: both, from: 1, reverse: true })
  assert.deepEqual(parts.map(([frame]) => frame), [1, 0])
  assert.equal(parts[0][1], 2)
})

test('a corrected frame is tracked too if another object has no mask on it yet', async () => {
  const { tracking: film } = tracking()
  await tracked(film, { prompts: [prompts(0, 1, 1)] })
  await film.prompt(prompts(3, 2, 1))
  const all = [prompts(0, 1, 1), prompts(3, 2, 1), prompts(1, 1, 2)]
  const parts = await tracked(film, { prompts: all, from: 3 })
  assert.deepEqual(parts[0], [3, 2, 0])
})

test('tracking ends before the next frame when it is stopped', async () => {
  const { tracking: film } = tracking()
  const frames = []
  const args = { prompts: [prompts(0, 1)], from: 0, reverse: false }
  for await (const { frame } of film.track(args, () => frames.length === 2)) frames.push(frame)
  assert.deepEqual(frames, [0, 1])
})
