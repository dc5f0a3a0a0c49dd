// What keys ask for while the image has the focus.
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { isUndo, requested } from '../page/interface/keys.js'

/** @param {string} key @param {object} [held] */
function press(key, held) {
  const event = { key, shiftKey: false, ctrlKey: false, altKey: false, metaKey: false, ...held }
  return requested(event)
}

test('keys ask for moves, tools, masks and acts', () => {
  assert.deepEqual(press('ArrowLeft'), { move: [-0.005, 0] })
  assert.deepEqual(press('ArrowDown', { shiftKey: true }), { move: [0, 0.05] })
  assert.deepEqual(press('x'), { tool: 'box' })
  assert.deepEqual(press('3'), { candidate: 2 })
  assert.deepEqual(press('n'), { act: 'add' })
  assert.deepEqual(press('z', { ctrlKey: true }), { act: 'undo' })
  assert.deepEqual(press('0'), { act: 'fit' })
})

test('Ctrl+Z and ⌘Z undo, also where the image has no focus', () => {
  const held = { shiftKey: false, ctrlKey: false, altKey: false, metaKey: false }
  assert(isUndo({ ...held, key: 'z', ctrlKey: true }))
  assert(isUndo({ ...held, key: 'z', metaKey: true }))
  assert(!isUndo({ ...held, key: 'Z', ctrlKey: true, shiftKey: true }))
  assert(!isUndo({ ...held, key: 'z' }))
})

test("the browser keeps its own keys' meanings", () => {
  for (const key of ['Tab', 'q', 'F5']) assert.equal(press(key), null)
  for (const key of ['+', '0', 'n', 'ArrowLeft']) assert.equal(press(key, { ctrlKey: true }), null)
})

test('keys show other frames: the next, ten further, the first and the last', () => {
  assert.deepEqual(press('.'), { frames: 1 })
  assert.deepEqual(press(','), { frames: -1 })
  assert.deepEqual(press('PageDown'), { frames: 10 })
  assert.deepEqual(press('Home'), { frames: -Infinity })
})
