// Objects that a person marked absent on frames: what is shown of them, and what is tracked.
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { masked, shownStep } from '../page/image/layers.js'
import {
  added, atFrame, cleared, currentOf, isGone, lastSteps, left, prompted, started,
} from '../page/image/objects.js'
import { Tracking } from '../page/frames/tracking-worker.js'
import { Tracker } from '../page/shared/tracker.js'
import { published as constants } from './published.js'

const CLICK = { points: [{ x: 1, y: 1, foreground: true }], box: null }
const click = (objects) => prompted(objects, CLICK, null, 1)
const at = (objects, frame, change) => change(atFrame(objects, frame))
const goneOf = (objects, count = 8) =>
  Array.from({ length: count }, (_, frame) => isGone(currentOf(objects), frame) ? 1 : 0).join('')
const marked = (where) => (objects) => left(objects, where, 2)

test('“not here” affects one frame, “ends” all later and “begins” all earlier frames', () => {
  const objects = click(started('#000000'))
  assert.equal(goneOf(objects), '00000000')
  assert.equal(goneOf(at(objects, 3, marked('here'))), '00010000')
  assert.equal(goneOf(at(objects, 3, marked('after'))), '00001111')
  const later = at(started('#000000'), 5, click)
  assert.equal(goneOf(at(later, 3, marked('before'))), '11100000')
  const both = at(at(later, 3, marked('before')), 6, marked('after'))
  assert.equal(goneOf(both), '11100001')
})

test('an object can begin and end on the same frame', () => {
  const objects = at(started('#000000'), 2, click)
  assert.equal(goneOf(marked('before')(marked('after')(objects))), '11011111')
})

test('a prompt after the end makes the object present again', () => {
  const objects = at(at(click(started('#000000')), 2, marked('after')), 5, click)
  assert.equal(goneOf(objects), '00011000')
  assert.equal(goneOf(at(objects, 6, marked('here'))), '00011010')
  assert.equal(goneOf(at(objects, 6, marked('after'))), '00011001')
})

test('a prompt on the last frame keeps the end, and one on an absent frame brings the object back', () => {
  const objects = at(click(started('#000000')), 3, marked('after'))
  assert.equal(goneOf(at(objects, 3, click)), '00001111')
  assert.equal(goneOf(at(at(objects, 2, marked('here')), 2, click)), '00001111')
})

test('marking absence again takes it back', () => {
  const objects = at(click(started('#000000')), 3, marked('after'))
  assert.equal(goneOf(marked('after')(objects)), '00000000')
})

test('an object marked “not here” has no prompt on that frame', () => {
  const objects = marked('here')(click(started('#000000')))
  assert.deepEqual(lastSteps(objects), [])
  const ended = marked('after')(click(started('#000000')))
  assert.deepEqual(lastSteps(ended).map(({ prompt }) => prompt), [CLICK])
  assert.equal(goneOf(cleared(ended, 3)), '01111111') // only its prompt is cleared
})

test('another object is unaffected', () => {
  const objects = click(added(at(click(started('#000000')), 0, marked('after')), '#111111'))
  assert.deepEqual(objects.entries.map((entry) => isGone(entry, 4)), [true, false])
})

test('a tracked mask is neither shown nor saved where its object is absent', () => {
  const place = { size: 8, width: 8, height: 8, scaleX: 1, scaleY: 1, scaledWidth: 8, scaledHeight: 8 }
  const masks = { data: new Float32Array(4).fill(5), dims: [1, 1, 2, 2] }
  const answer = { masks, scores: Float32Array.of(1), best: 0, threshold: 0, place, milliseconds: 0 }
  const tracked = (frame) =>
    new Map([[1, { prompt: { points: [], box: null }, frame, id: 1, answer, choice: null }]])
  const objects = at(click(started('#000000')), 3, marked('after'))
  const shown = Array.from({ length: 6 }, (_, frame) => {
    const there = atFrame(objects, frame)
    const found = masked(there, tracked(frame)).length
    assert.equal(found, shownStep(currentOf(there), tracked(frame))?.answer ? 1 : 0)
    return found
  })
  assert.deepEqual(shown, [0, 1, 1, 1, 0, 0]) // on the first frame the click has no answer yet
})

/** A tracker over fake graphs, and how many memories each tracked frame uses. */
function tracking(count = 8) {
  const values = (value, dims) => {
    return { data: new Float32Array(dims.reduce((product, each) => product * each, 1)).fill(value), dims }
  }
  /** @type {[number, number][]} frames, and how many memories were used */
  const looked = []
  const tracker = new Tracker({
    constants,
    frames: { count, width: 8, height: 8 },
    store: new Map(),
    features: async (frame) => ({
      image_embed: values(frame, [1, 2, 1, 1]),
      high_res_feats_0: values(frame, [1, 1, 2, 2]),
      high_res_feats_1: values(frame, [1, 1, 1, 1]),
    }),
    async run(graph, { image_embed, memories }) {
      const frame = Number(image_embed.data[0])
      if (graph === 'memory_attention') looked.push([frame, memories.dims[0]])
      return {
        conditioned_embed: values(frame, [1, 2, 1, 1]),
        low_res_masks: values(1, [1, 1, 2, 2]),
        iou_predictions: values(0.5, [1, 1]),
        object_score_logits: values(3, [1, 1]),
        object_pointer: values(0, [1, 2]),
        memory: values(0, [1, 3]),
      }
    },
  })
  return { film: new Tracking(tracker), tracker, looked }
}

const prompts = (frame, id) => ({ frame, id, prompts: [CLICK] })

/** Which objects have a mask, by frame. */
async function tracked(film, args) {
  const found = {}
  for await (const { frame, masks } of film.track({ from: 0, reverse: false, ...args }, () => false)) {
    found[frame] = masks.map(({ id }) => id)
  }
  return found
}

test('tracking ends with the range in both directions', async () => {
  const { film } = tracking()
  const on = await tracked(film, { prompts: [prompts(4, 1)], from: 4, until: 6 })
  assert.deepEqual(on, { 4: [1], 5: [1], 6: [1] })
  const back = await tracked(film, { prompts: [prompts(4, 1)], from: 4, until: 3, reverse: true })
  assert.deepEqual(back, { 4: [1], 3: [1] })
  assert.deepEqual(await tracked(film, { prompts: [prompts(4, 1)], from: 4, until: 4 }), { 4: [1] })
})

test('objects that are not chosen stay unchanged', async () => {
  const { film, tracker } = tracking()
  const both = [prompts(0, 1), prompts(0, 2)]
  await tracked(film, { prompts: both })
  const before = tracker.objects.get(1)
  const found = await tracked(film, { prompts: both, ids: [2], until: 2 })
  assert.deepEqual(found, { 0: [2], 1: [2], 2: [2] })
  assert.equal(tracker.objects.get(1), before)
  assert.equal(before.history.others.size, 7)
})

test('an absent object has no mask, and no memory of it is kept', async () => {
  const { film, looked } = tracking()
  const all = [prompts(0, 1), prompts(0, 2)]
  await tracked(film, { prompts: all })
  looked.length = 0
  const found = await tracked(film, { prompts: all, gone: [{ id: 1, frames: [3, 4, 6, 7] }] })
  assert.deepEqual(found[2], [1, 2])
  assert.deepEqual(found[3], [2])
  assert.deepEqual(found[5], [1, 2])
  assert.deepEqual(found[7], [2])
  const [first, second] = looked.filter(([frame]) => frame === 5)
  assert.deepEqual([first[1], second[1]], [3, 5]) // memories of frames 0 to 2, and 0 to 4
})

test('a correction outside the range or of an object that is not tracked is not repeated', async () => {
  const { film } = tracking()
  const all = [prompts(0, 1), prompts(0, 2)]
  await tracked(film, { prompts: all })
  await film.prompt(prompts(3, 1))
  const found = await tracked(film, { prompts: [...all, prompts(3, 1)], ids: [2] })
  assert.deepEqual(found[3], [2])
})

test('after a correction on the last frame of the range there is nothing to track', async () => {
  const { film } = tracking()
  await tracked(film, { prompts: [prompts(0, 1)] })
  await film.prompt(prompts(3, 1))
  const all = [prompts(0, 1), prompts(3, 1)]
  assert.deepEqual(await tracked(film, { prompts: all, from: 3, until: 3 }), {})
})
