// Which frames a tracker uses, what it feeds the graphs, and what it keeps of a long video.
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { History, nearest, select, wantsSeveral } from '../page/shared/memory-bank.js'
import { resizedMask, Tracker } from '../page/shared/tracker.js'
import { published } from './published.js'

/** @param {number} from @param {number} to */
const range = (from, to) => Array.from({ length: to - from }, (_, i) => from + i)

test('the newest memories are selected with the prompted one', () => {
  const { memories, pointers } = select(9, false, 24, [0], range(1, 9), published)
  assert.deepEqual(memories, [[0, 6], [3, 5], [4, 4], [5, 3], [6, 2], [7, 1], [8, 0]])
  assert.deepEqual(pointers, [[0, 9], ...range(1, 9).map((age) => [9 - age, age])])
})

test('in reverse the following frames are the newest', () => {
  const { memories, pointers } = select(8, true, 24, [12], range(9, 24), published)
  assert.deepEqual(memories.slice(0, 2), [[12, 6], [14, 5]])
  assert.deepEqual(memories.at(-1), [9, 0])
  assert.deepEqual(pointers.slice(0, 2), [[12, 4], [9, 1]])
})

test('a frame before the prompted one gets its memory but no pointer, unless both directions count', () => {
  const found = select(0, false, 24, [12], [], published)
  assert.deepEqual(found, { memories: [[12, 6]], pointers: [] })
  const bothWays = { ...published, pointers_from_past_only: false }
  assert.deepEqual(select(0, false, 24, [12], [], bothWays).pointers, [[12, -12]])
  const unsigned = { ...bothWays, signed_pointer_times: false }
  assert.deepEqual(select(0, false, 24, [12], [], unsigned).pointers, [[12, 12]])
})

test('with a stride, the last frame counts, and every n-th before it', () => {
  const some = { ...published, memories: 4, memory_stride: 3 }
  const ages = (/** @type {ReturnType<typeof select>} */ { memories }) => memories.map(([at]) => at)
  assert.deepEqual(ages(select(11, false, 24, [0], range(1, 11), some)), [0, 6, 9, 10])
  assert.deepEqual(ages(select(11, true, 24, [23], range(12, 23), some)), [23, 18, 15, 12])
})

test('conditioning frames beyond the limit count as tracked frames', () => {
  assert.deepEqual(nearest(10, [0, 4, 9, 20], 2), [9, 20])
  assert.deepEqual(nearest(10, [0, 4, 9, 20], 3), [9, 20, 4])
  const few = { ...published, max_conditioning_frames: 2 }
  const { memories } = select(10, false, 24, [0, 4, 9, 20], range(5, 9), few)
  assert.ok(memories.some(([frame, time]) => frame === 4 && time === 5))
  assert.ok(!memories.some(([frame]) => frame === 0))
})

test('pointers are limited by the number of frames', () => {
  assert.equal(select(20, false, 24, [0], range(1, 20), published).pointers.length, 16)
  assert.equal(select(3, false, 3, [0], range(1, 3), published).pointers.length, 3)
})

test('several masks are requested as the constants say', () => {
  assert.ok(wantsSeveral(published, 1, false))
  assert.ok(!wantsSeveral(published, 2, false))
  assert.ok(!wantsSeveral({ ...published, multimask_when_tracking: false }, 0, true))
  assert.ok(!wantsSeveral({ ...published, multimask_points: null }, 1, false))
})

test('a prompt conditions before its frame is tracked, and corrects afterwards', () => {
  const history = new History()
  history.prompted(0, 'first', published)
  history.settle(0)
  history.tracked.set(0, false).set(1, false)
  history.others.set(1, 'tracked')
  history.prompted(1, 'corrected', published)
  history.prompted(0, 'again', published)
  history.settle(1)
  history.settle(0)
  assert.deepEqual([...history.conditioning], [[0, 'again']])
  assert.deepEqual([...history.others], [[1, 'corrected']])
})

test('undoing a prompt keeps the settled result of its frame as tracked', () => {
  const history = new History()
  history.prompted(3, 'first', published)
  history.settle(3)
  history.prompted(3, 'second', published)
  assert.equal(history.newest(3), 'second')
  history.cleared(3)
  assert.equal(history.newest(3), 'first')
  assert.equal(history.conditioning.size, 0)
})

test('a mask is scaled with half of its surroundings', () => {
  const mask = { data: [1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], width: 4, height: 4 }
  assert.deepEqual([...resizedMask(mask, 2)], [1, 0, 0, 0])
  assert.deepEqual([...resizedMask(mask, 4)], mask.data)
})

/** A tracker over graphs that answer with their inputs. @param {number} count */
function drawn(count) {
  /** @type {[string, any][]} */
  const runs = []
  /** @type {number[]} */
  const encoded = []
  const store = new Map()
  const values = (/** @type {number} */ value, /** @type {number[]} */ dims) => ({
    data: new Float32Array(dims.reduce((product, each) => product * each, 1)).fill(value),
    dims,
  })
  const tracker = new Tracker({
    constants: published,
    frames: { count, width: 16, height: 4 },
    store,
    async features(frame) {
      encoded.push(frame)
      return {
        image_embed: values(frame, [1, 2, 1, 1]),
        high_res_feats_0: values(frame, [1, 1, 2, 2]),
        high_res_feats_1: values(frame, [1, 1, 1, 1]),
      }
    },
    async run(graph, feeds) {
      runs.push([graph, feeds])
      return {
        conditioned_embed: values(100 + feeds.image_embed.data[0], [1, 2, 1, 1]),
        low_res_masks: values(40 + feeds.image_embed.data[0], [1, 1, 2, 2]),
        iou_predictions: values(0.5, [1, 1]),
        object_score_logits: values(3, [1, 1]),
        object_pointer: values(feeds.image_embed.data[0], [1, 2]),
        memory: values(feeds.image_embed.data[0], [1, 3]),
        image_embed_without_memory: values(-1, [1, 2, 1, 1]),
        mask_input: values(9, [1, 1, 2, 2]),
      }
    },
  })
  const feeds = (/** @type {string} */ name) =>
    runs.filter(([graph]) => graph === name).map(([, fed]) => fed)
  return { tracker, runs, feeds, encoded, store }
}

/** @type {import('../page/shared/tracker.js').Prompt} */
const click = { points: [[4, 1]], labels: [1] }

/** @param {Tracker} tracker @param {Parameters<Tracker['track']>[0]} [args] */
async function all(tracker, args) {
  const found = []
  for await (const each of tracker.track(args)) found.push(each)
  return found
}

test("a prompt is scaled to the model's input, a box before the points", async () => {
  const { tracker, feeds } = drawn(3)
  await tracker.prompt(1, 1, { ...click, box: [0, 0, 8, 4] })
  const [{ point_coords, point_labels, multimask, has_mask_input }] = feeds('tracking_decoder')
  assert.deepEqual([...point_coords.data], [0, 0, 4, 8, 2, 2])
  assert.deepEqual([...point_labels.data], [2, 3, 1])
  assert.deepEqual([multimask.data[0], has_mask_input.data[0]], [0, 0])
})

test('a later prompt on the same frame refines the mask, with limited logits', async () => {
  const { tracker, feeds } = drawn(3)
  await tracker.prompt(1, 1, click)
  await tracker.prompt(1, 1, click)
  const [first, second] = feeds('tracking_decoder')
  assert.deepEqual([...second.mask_input.data], [32, 32, 32, 32])
  assert.deepEqual([first, second].map((fed) => fed.has_mask_input.data[0]), [0, 1])
  assert.deepEqual([first, second].map((fed) => fed.multimask.data[0]), [1, 1])
  assert.equal(feeds('memory_attention').length, 0)
})

test('memories and pointers of earlier frames are fed with their times', async () => {
  const { tracker, feeds } = drawn(4)
  await tracker.prompt(0, 1, click)
  const found = await all(tracker)
  assert.deepEqual(found.map(({ frame }) => frame), [0, 1, 2, 3])
  const last = feeds('memory_attention').at(-1)
  assert.deepEqual([...last.memory_times.data], [6, 1, 0])
  assert.deepEqual(last.memories.dims, [3, 3])
  assert.deepEqual([...last.memories.data], [0, 0, 0, 1, 1, 1, 2, 2, 2])
  assert.deepEqual(last.pointers.dims, [3, 2])
  assert.deepEqual([...last.pointers.data], [0, 0, 102, 102, 101, 101])
  assert.deepEqual([...last.pointer_times.data], [1, Math.fround(1 / 3), Math.fround(2 / 3)])
  const encoded = feeds('memory_encoder')
  assert.deepEqual(encoded.map(({ prompted }) => prompted.data[0]), [1, 0, 0, 0])
  assert.deepEqual(encoded.map((fed) => fed.object_score_logits.data[0]), [3, 3, 3, 3])
  assert.deepEqual(encoded.map((fed) => fed.low_res_masks.data[0]), [40, 141, 142, 143])
})

test('a corrected single frame uses its own memory, at a finite age', async () => {
  const { tracker, feeds } = drawn(1)
  await tracker.prompt(0, 1, click)
  assert.equal((await all(tracker)).length, 1)
  await tracker.prompt(0, 1, click)
  const [{ memory_times, pointer_times }] = feeds('memory_attention')
  assert.deepEqual([...memory_times.data], [6])
  assert.deepEqual([...pointer_times.data], [0])
})

test('the encoder runs once per frame for all objects', async () => {
  const { tracker, encoded } = drawn(5)
  for (const object of [1, 2, 3]) await tracker.prompt(0, object, click)
  await all(tracker)
  assert.deepEqual(encoded, [0, 1, 2, 3, 4])
})

test('a correction uses memories in the direction of tracking', async () => {
  const { tracker, feeds } = drawn(5)
  await tracker.prompt(4, 1, click)
  await all(tracker, { from: 4, reverse: true })
  await tracker.prompt(1, 1, click)
  assert.deepEqual([...feeds('memory_attention').at(-1).memory_times.data], [6, 1, 0])
  await all(tracker, { from: 4, reverse: true })
  assert.deepEqual(feeds('memory_encoder').map(({ prompted }) => prompted.data[0]).slice(5), [
    1, 0, 0, 0, 0,
  ])
})

test('a given mask defines an object; the decoder gives only the pointer', async () => {
  const { tracker, feeds } = drawn(2)
  const mask = { data: new Uint8Array(64).fill(1), width: 16, height: 4 }
  const { lowResMasks } = await tracker.prompt(0, 1, { mask })
  assert.equal(lowResMasks[0], 40) // from the frame's own embedding, 0
  const [{ image_embed, mask_input, point_labels }] = feeds('tracking_decoder')
  assert.deepEqual([image_embed.data[0], mask_input.data[0], point_labels.data[0]], [-1, 9, -1])
})

test('results outside the memory window are in the store, and are read back from it', async () => {
  const { tracker, store } = drawn(60)
  await tracker.prompt(0, 1, click)
  await all(tracker)
  assert.ok(store.size >= 50)
  const [{ shelf }] = tracker.objects.values()
  assert.ok(shelf.atHand.size <= published.memories + 2)
  const early = await tracker.result(10, 1)
  assert.equal(early?.lowResMasks[0], 150)
  await tracker.prompt(10, 1, click)
  assert.equal((await all(tracker, { from: 10 })).length, 50)
  await tracker.remove(1)
  assert.equal(store.size, 0)
})

test('a correction replaces the stored result of a frame', async () => {
  const { tracker } = drawn(60)
  await tracker.prompt(0, 1, click)
  await all(tracker)
  await tracker.prompt(0, 1, { mask: { data: [1], width: 1, height: 1 } })
  await all(tracker)
  const found = await all(tracker, { from: 0 })
  assert.equal(found[0].objects[0].pointer[0], -1)
})

test('tracking stops before the next frame on request', async () => {
  const { tracker } = drawn(9)
  await tracker.prompt(0, 1, click)
  const stop = new AbortController()
  const seen = []
  for await (const { frame } of tracker.track({ signal: stop.signal })) {
    seen.push(frame)
    if (frame === 2) stop.abort()
  }
  assert.deepEqual(seen, [0, 1, 2])
})

test('a frame with a failed run does not count as tracked: a prompt there conditions', async () => {
  const { tracker, feeds } = drawn(9)
  await tracker.prompt(0, 1, click)
  const { run } = tracker
  tracker.run = async (graph, fed) => {
    if (graph === 'tracking_decoder' && fed.image_embed.data[0] === 102) throw new Error('no memory')
    return run(graph, fed)
  }
  await assert.rejects(all(tracker), /no memory/)
  tracker.run = run
  const before = feeds('memory_attention').length
  await tracker.prompt(2, 1, click)
  assert.equal(feeds('memory_attention').length, before)
  assert.equal((await all(tracker)).length, 9)
  assert.deepEqual([...feeds('memory_attention').at(-1).memory_times.data].slice(0, 2), [6, 6])
})

test('an invalid prompt is refused with a message and leaves no object', async () => {
  const { tracker } = drawn(3)
  const empty = { data: [0, 0], width: 2, height: 1 }
  /** @type {[number, import('../page/shared/tracker.js').Prompt, RegExp][]} */
  const cases = [
    [3, click, /no frame 3: expected one of the frames 0 to 2/],
    [-1, click, /no frame -1/],
    [0, {}, /Expected a mask, a box, or points/],
    [0, { points: [[1, 1]], labels: [1, 0] }, /a label each/],
    [0, { points: [[17, 1]], labels: [1] }, /17, 1 is outside the frame, 16 × 4/],
    [0, { mask: empty }, /mask on frame 0 is empty/],
  ]
  for (const [frame, prompt, words] of cases) {
    await assert.rejects(tracker.prompt(frame, 1, prompt), words)
  }
  await assert.rejects(all(tracker), /prompt an object on a frame first/)
})
