// The objects of an image: which exist, which one is current, what undo does.
import assert from 'node:assert/strict'
import { test } from 'node:test'

import {
  added,
  atFrame,
  changed,
  chosen,
  cleared,
  currentOf,
  joined,
  lastStep,
  lastSteps,
  removed,
  started,
  stepped,
  titleOf,
  unanswered,
  withChoice,
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

/** Three objects with a step each; the third is current. */
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

test('a further object becomes current, with the next number and its colour', () => {
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

test('steps and clear affect only the current object', () => {
  const objects = stepped(chosen(three(), 2), step(4))
  const points = (/** @type {Objects} */ { entries }) =>
    entries.map((entry) => lastStep(entry)?.prompt.points[0].x ?? null)
  assert.deepEqual(points(objects), [1, 4, 3])
  assert.deepEqual(points(cleared(objects, 5)), [1, null, 3])
})

test('the other objects keep their numbers when one is deleted', () => {
  const objects = removed(three(), 2)
  assert.deepEqual(numbers(objects), [1, 3])
  assert.equal(objects.current, 3)
  assert.deepEqual(numbers(added(objects, '#444444')), [1, 3, 4])
})

test('after deleting the current object, the next one becomes current, or the one before', () => {
  assert.equal(removed(chosen(three(), 2), 2).current, 3)
  assert.equal(removed(three(), 3).current, 2)
})

test('a new object replaces the only one when it is deleted', () => {
  const objects = removed(stepped(started('#111111'), step(1)), 1)
  assert.deepEqual(objects.entries.map(({ number, steps }) => [number, steps]), [[1, []]])
  assert.equal(objects.entries[0].color, '#111111')
})

test('an object is called by its name, or else by its number', () => {
  const objects = changed(three(), 2, { name: ' nucleus ' })
  assert.deepEqual(objects.entries.map(titleOf), ['Object 1', 'nucleus', 'Object 3'])
})

test('an object that does not exist cannot be chosen', () => {
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

test('each frame has its own steps, which return when it is shown again', () => {
  const objects = atFrame(three(), 4)
  assert.deepEqual(objects.entries.map(lastStep), [null, null, null])
  const later = stepped(objects, step(7))
  assert.equal(lastStep(currentOf(later))?.prompt.points[0].x, 7)
  assert.deepEqual(atFrame(later, 0).entries.map(({ steps }) => steps), three().entries.map(({ steps }) => steps))
  assert.equal(lastStep(currentOf(atFrame(atFrame(later, 0), 4)))?.prompt.points[0].x, 7)
})

test('the last steps are those of all frames, without cleared ones', () => {
  const objects = cleared(atFrame(stepped(atFrame(three(), 4), step(7)), 0), 8)
  assert.deepEqual(lastSteps(objects).map(({ prompt }) => prompt.points[0].x).sort(), [1, 2, 7])
})

test('an object that was prompted on another frame is not taken for a new one', () => {
  const objects = added(atFrame(stepped(started('#111111'), step(1)), 4), '#222222')
  assert.deepEqual(numbers(objects), [1, 2])
})

test('the id of a deleted object is not reused', () => {
  const objects = added(removed(three(), 3), '#444444')
  assert.deepEqual(objects.entries.map(({ id }) => id), [1, 2, 4])
})

test('a step on another frame is answered too, after those on the shown frame', () => {
  const objects = atFrame(stepped(started('#111111'), step(1)), 4)
  assert.equal(unanswered(objects)?.prompt.points[0].x, 1)
  assert.equal(unanswered(stepped(objects, step(7)))?.prompt.points[0].x, 7)
})

test('the only object stays if it has no prompt', () => {
  const objects = started('#111111')
  assert.equal(removed(objects, 1), objects)
})

const further = [{ step: step(1) }, { step: step(2) }]
const colorOf = (/** @type {number} */ number) => `color ${number}`

test('objects that come with masks replace those without a prompt', () => {
  const objects = joined(started('#111111'), further, colorOf)
  assert.deepEqual(numbers(objects), [1, 2])
  assert.deepEqual(objects.entries.map(({ id, color }) => [id, color]), [[2, 'color 1'], [3, 'color 2']])
  assert.equal(objects.current, 1)
  assert.deepEqual(numbers(joined(added(three(), '#444444'), further, colorOf)), [1, 2, 3, 4, 5])
})

test('objects keep their own numbers, unless another object has them', () => {
  const some = [{ number: 7, step: step(1) }, { number: 2, step: step(2) }]
  assert.deepEqual(numbers(joined(started('#111111'), some, colorOf)), [7, 2])
  assert.deepEqual(numbers(joined(three(), some, colorOf)), [1, 2, 3, 7, 8])
})

test('an object without a prompt but with masks on frames stays', () => {
  const objects = joined(started('#111111'), [{ number: 3, step: null }], colorOf)
  assert.deepEqual(numbers(added(objects, '#222222')), [3, 4])
})

test('a named object stays, and no mask is decoded for an opened one', () => {
  const pixels = /** @type {any} */ ({})
  const named = changed(started('#111111'), 1, { name: 'nucleus' })
  const objects = joined(named, [{ step: { pixels } }], colorOf)
  assert.deepEqual(objects.entries.map(titleOf), ['nucleus', 'Object 2'])
  assert.equal(lastStep(currentOf(objects))?.pixels, pixels)
  assert.equal(unanswered(objects), null)
})

test('choosing another mask is its own step', () => {
  const objects = stepped(started('#111111'), step(1))
  assert.equal(lastStep(currentOf(withChoice(objects, 2)))?.choice, 2)
  assert.equal(lastStep(currentOf(objects))?.choice, null)
})
