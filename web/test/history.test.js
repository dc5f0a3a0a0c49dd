// Undo and redo of the last change, on any object and frame.
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { History } from '../page/image/history.js'
import { added, atFrame, changed, chosen, prompted, removed, started } from '../page/image/objects.js'

/** @typedef {import('../page/image/objects.js').Objects} Objects */

/** The objects after the last change, and the history to undo it. */
class Changes {
  history = new History()
  /** @param {Objects} now */
  constructor(now) {
    this.now = now
  }

  /** @param {Objects} next @param {string} [kind] */
  make(next, kind) {
    this.history.keep(this.now, kind)
    this.now = next
    return next
  }
}

/** @param {Objects} objects @param {number} x */
const clicked = (objects, x) =>
  prompted(objects, { points: [{ x, y: 0, foreground: true }], box: null }, null, x)

/** @param {Objects} objects */
const points = ({ entries }) => entries.map(({ steps }) => steps.at(-1)?.prompt.points[0]?.x ?? null)

test('undo reverts the last change, even if another object is current', () => {
  const changes = new Changes(clicked(started('#111111'), 1))
  changes.make(added(changes.now, '#222222'))
  changes.make(clicked(changes.now, 2))
  const elsewhere = chosen(changes.now, 1)
  const back = changes.history.undo(elsewhere)
  assert.deepEqual(points(back), [1, null])
  assert.equal(back.current, 2)
  assert.deepEqual(points(changes.history.undo(back)), [1])
})

test('undo and redo of a deletion restore and remove the object unchanged', () => {
  const before = clicked(added(clicked(started('#111111'), 1), '#222222'), 2)
  const changes = new Changes(before)
  const without = changes.make(removed(before, 1))
  const back = changes.history.undo(without)
  assert.deepEqual(back, before)
  assert.deepEqual(changes.history.redo(back), without)
})

test('a change on another frame is undone and redone on that frame', () => {
  const changes = new Changes(atFrame(started('#111111'), 3))
  changes.make(clicked(changes.now, 1))
  const back = changes.history.undo(atFrame(changes.now, 5))
  assert.deepEqual([back.frame, points(back)], [3, [null]])
  const again = changes.history.redo(atFrame(back, 0))
  assert.deepEqual([again.frame, points(again)], [3, [1]])
})

test('after another change there is nothing to redo', () => {
  const changes = new Changes(started('#111111'))
  changes.make(clicked(changes.now, 1))
  changes.now = changes.history.undo(changes.now)
  changes.make(clicked(changes.now, 2))
  assert.equal(changes.history.redo(changes.now), changes.now)
})

test('typing a name is one change', () => {
  const changes = new Changes(started('#111111'))
  for (const name of ['n', 'nu', 'nuc']) changes.make(changed(changes.now, 1, { name }), 'name 1')
  assert.equal(changes.history.undo(changes.now).entries[0].name, '')
  assert.equal(changes.history.past.length, 0)
})

test('an undone id is not reused, because tracked masks are stored under it', () => {
  const changes = new Changes(clicked(started('#111111'), 1))
  changes.make(added(changes.now, '#222222'))
  const back = changes.history.undo(changes.now)
  assert.deepEqual(added(back, '#333333').entries.map(({ id }) => id), [1, 3])
})

test('without a change undo and redo do nothing', () => {
  const objects = started('#111111')
  assert.equal(new History().undo(objects), objects)
  assert.equal(new History().redo(objects), objects)
})
