// The objects of an image: which there are, which one is worked on, what undo does.
import assert from 'node:assert/strict'
import { test } from 'node:test'

import {
  added,
  atFrame,
  changed,
  chosen,
  cleared,
  currentOf,
  isUndoable,
  lastStep,
  lastSteps,
  removed,
  started,
  stepped,
  titleOf,
  unanswered,
  undone,
} from '../page/image/objects.js'

/** @typedef {import('../page/image/objects.js').Objects} Objects */

/**
 * @param {number} x
 * @param {number} [since]
 * @returns {import('../page/image/objects.js').Step}
 */
function step(x, since = x) {
  const prompt = { points: [{ x, y: 0, foreground: true }], box: null }
  return { prompt, refines: null, frame: 0, id: 1, answer: null, choice: null, since }
}

/** Three objects with a step each; the third is worked on. */
function three() {
  let objects = stepped(started('#111111'), step(1))
  objects = stepped(added(objects, '#222222'), step(2))
  return stepped(added(objects, '#333333'), step(3))
}

/** @param {Objects} objects */
const numbers = ({ entries }) => entries.map(({ number }) => number)

test('an image starts with one object without a prompt', () => {
  const objects = started('#111111')
  assert.deepEqual(numbers(objects), [1])
  assert.equal(lastStep(currentOf(objects)), null)
})

test('a further object is worked on, with the next number and its colour', () => {
  const objects = three()
  assert.deepEqual(numbers(objects), [1, 2, 3])
  assert.equal(currentOf(objects).number, 3)
  assert.equal(currentOf(objects).color, '#333333')
})

test('an object without a prompt is used before another is added', () => {
  const objects = chosen(added(three(), '#444444'), 1)
  const again = added(objects, '#555555')
  assert.deepEqual(numbers(again), [1, 2, 3, 4])
  assert.equal(again.current, 4)
})

test('steps, undo and clear are of the current object alone', () => {
  const objects = stepped(chosen(three(), 2), step(4))
  const points = (/** @type {Objects} */ { entries }) =>
    entries.map((entry) => lastStep(entry)?.prompt.points[0].x ?? null)
  assert.deepEqual(points(objects), [1, 4, 3])
  assert.deepEqual(points(undone(objects)), [1, 2, 3])
  assert.deepEqual(points(cleared(objects, 5)), [1, null, 3])
})

test('undo brings back what was cleared', () => {
  const objects = three()
  assert.deepEqual(undone(cleared(objects, 4)), objects)
  assert.equal(cleared(started('#111111'), 1).entries[0].steps.length, 0)
})

test('undo brings back what was deleted, as it was', () => {
  for (const current of [1, 2, 3]) {
    const objects = changed(chosen(three(), current), current, { name: 'nucleus' })
    assert.deepEqual(undone(removed(objects, current, 4)), objects)
  }
  const only = stepped(started('#111111'), step(1))
  assert.deepEqual(undone(removed(only, 1, 2)), only)
})

test('undo takes back first what came later than the deletion', () => {
  const objects = stepped(removed(three(), 1, 4), step(5))
  const once = undone(objects)
  assert.equal(lastStep(currentOf(once))?.prompt.points[0].x, 3)
  assert.deepEqual(numbers(undone(once)), [1, 2, 3])
})

test('several deletions are taken back one by one', () => {
  const objects = removed(removed(removed(three(), 1, 4), 3, 5), 2, 6)
  assert.deepEqual(numbers(undone(objects)), [2])
  assert.deepEqual(numbers(undone(undone(objects))), [2, 3])
  assert.deepEqual(undone(undone(undone(objects))).entries, three().entries)
})

test('a deleted object whose number was given away comes back with the next', () => {
  const objects = stepped(added(removed(three(), 3, 4), '#444444'), step(5))
  assert.deepEqual(numbers(objects), [1, 2, 3])
  const back = undone(undone(objects))
  assert.deepEqual(numbers(back), [1, 2, 4, 3])
  assert.equal(currentOf(back).color, '#333333')
})

test('an object without a prompt is deleted for good', () => {
  assert(!isUndoable(removed(started('#111111'), 1, 1)))
  assert(isUndoable(removed(three(), 2, 4)))
})

test('undo of an object without a prompt does nothing', () => {
  assert.deepEqual(undone(started('#111111')), started('#111111'))
})

test('the other objects keep their numbers when one is deleted', () => {
  const objects = removed(three(), 2, 4)
  assert.deepEqual(numbers(objects), [1, 3])
  assert.equal(objects.current, 3)
  assert.deepEqual(numbers(added(objects, '#444444')), [1, 3, 4])
})

test('after the current object is deleted the next is worked on, or the one before', () => {
  assert.equal(removed(chosen(three(), 2), 2, 4).current, 3)
  assert.equal(removed(three(), 3, 4).current, 2)
})

test('in place of the last object that is deleted there is a new one', () => {
  const objects = removed(stepped(started('#111111'), step(1)), 1, 2)
  assert.deepEqual(objects.entries.map(({ number, steps }) => [number, steps]), [[1, []]])
  assert.equal(objects.entries[0].color, '#111111')
})

test('an object is called by its name, or else by its number', () => {
  const objects = changed(three(), 2, { name: ' nucleus ' })
  assert.deepEqual(objects.entries.map(titleOf), ['Object 1', 'nucleus', 'Object 3'])
})

test('an object that is not there cannot be chosen', () => {
  assert.equal(chosen(three(), 9).current, 3)
})

test('the current object is answered first, then the others', () => {
  const objects = chosen(three(), 2)
  assert.equal(unanswered(objects), lastStep(currentOf(objects)))
  const answer = /** @type {import('../page/image/objects.js').Answer} */ ({})
  for (const { steps } of objects.entries.slice(1)) Object.assign(steps[0], { answer })
  assert.equal(unanswered(objects), objects.entries[0].steps[0])
  Object.assign(objects.entries[0].steps[0], { answer })
  assert.equal(unanswered(objects), null)
})

test('each frame has steps of its own, which are there again when it is shown', () => {
  const objects = atFrame(three(), 4)
  assert.deepEqual(objects.entries.map(lastStep), [null, null, null])
  const later = stepped(objects, step(7))
  assert.equal(lastStep(currentOf(later))?.prompt.points[0].x, 7)
  assert.deepEqual(atFrame(later, 0).entries.map(({ steps }) => steps), three().entries.map(({ steps }) => steps))
  assert.equal(lastStep(currentOf(atFrame(atFrame(later, 0), 4)))?.prompt.points[0].x, 7)
})

test('undo is of the frame that is shown', () => {
  const objects = atFrame(three(), 4)
  assert(!isUndoable(objects))
  assert.equal(lastSteps(undone(stepped(objects, step(7)))).length, 3)
})

test('the last steps are those of all frames, without what was cleared', () => {
  const objects = cleared(atFrame(stepped(atFrame(three(), 4), step(7)), 0), 8)
  assert.deepEqual(lastSteps(objects).map(({ prompt }) => prompt.points[0].x).sort(), [1, 2, 7])
})

test('an object that was prompted on another frame is not taken for a new one', () => {
  const objects = added(atFrame(stepped(started('#111111'), step(1)), 4), '#222222')
  assert.deepEqual(numbers(objects), [1, 2])
})

test('a deleted object comes back with its steps on all frames', () => {
  const objects = atFrame(three(), 4)
  const back = undone(atFrame(removed(objects, 3, 9), 5))
  assert.equal(lastStep(currentOf(atFrame(back, 0)))?.prompt.points[0].x, 3)
})

test('no object has the id of another that was deleted', () => {
  const objects = added(removed(three(), 3, 4), '#444444')
  assert.deepEqual(objects.entries.map(({ id }) => id), [1, 2, 4])
})

test('a step on another frame is answered too, after those on the frame that is shown', () => {
  const objects = atFrame(stepped(started('#111111'), step(1)), 4)
  assert.equal(unanswered(objects)?.prompt.points[0].x, 1)
  assert.equal(unanswered(stepped(objects, step(7)))?.prompt.points[0].x, 7)
})
