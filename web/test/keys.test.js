// What keys do, and which of them an element keeps for itself.
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { needsKey, requested } from '../page/interface/keys.js'

/** @param {string} key @param {object} [held] */
function press(key, held) {
  const event = { key, shiftKey: false, ctrlKey: false, altKey: false, metaKey: false, ...held }
  return requested(event)
}

test('keys stand for moves, tools, masks and actions', () => {
  assert.deepEqual(press('ArrowLeft'), { move: [-0.005, 0] })
  assert.deepEqual(press('ArrowDown', { shiftKey: true }), { move: [0, 0.05] })
  assert.deepEqual(press('x'), { tool: 'box' })
  assert.deepEqual(press('3'), { candidate: 2 })
  assert.deepEqual(press('n'), { act: 'add' })
  assert.deepEqual(press('z', { ctrlKey: true }), { act: 'undo' })
  assert.deepEqual(press('0'), { act: 'fit' })
})

test('Ctrl+Z and ⌘Z undo; with Shift, or Y, they redo', () => {
  assert.deepEqual(press('z', { metaKey: true }), { act: 'undo' })
  for (const held of [{ ctrlKey: true }, { metaKey: true }]) {
    assert.deepEqual(press('Z', { ...held, shiftKey: true }), { act: 'redo' })
    assert.deepEqual(press('y', held), { act: 'redo' })
  }
  assert.equal(press('z'), null)
})

test('Enter adds a point or chooses an object; with Shift it adds a point', () => {
  assert.deepEqual(press('Enter'), { place: 'any' })
  assert.deepEqual(press('Enter', { shiftKey: true }), { place: 'point' })
})

test('a text field keeps all keys', () => {
  for (const element of [{ tagName: 'INPUT', type: 'text' }, { tagName: 'INPUT', type: 'number' }, { tagName: 'TEXTAREA' }]) {
    for (const key of ['n', 'Escape', 'z', 'Backspace']) assert(needsKey(element, key), key)
  }
})

test('other controls keep the keys that operate them, and leave the rest', () => {
  const needs = (/** @type {string} */ tagName, /** @type {string} */ type) =>
    ['n', '1', 'z', 'Escape', 'Enter', ' ', 'ArrowUp', 'Home'].filter((key) => needsKey({ tagName, type }, key))
  assert.deepEqual(needs('BODY', ''), [])
  assert.deepEqual(needs('BUTTON', 'button'), ['Enter', ' '])
  assert.deepEqual(needs('INPUT', 'checkbox'), ['Enter', ' '])
  assert.deepEqual(needs('INPUT', 'radio'), [' ', 'ArrowUp'])
  assert.deepEqual(needs('INPUT', 'range'), ['ArrowUp', 'Home'])
  assert.deepEqual(needs('SELECT', ''), ['n', '1', 'z', 'Enter', ' ', 'ArrowUp', 'Home'])
})

test("the browser's own keys keep their meaning", () => {
  for (const key of ['Tab', 'q', 'F5']) assert.equal(press(key), null)
  for (const key of ['+', '0', 'n', 'ArrowLeft']) assert.equal(press(key, { ctrlKey: true }), null)
})

test('keys show other frames: the next, ten further, the first and the last', () => {
  assert.deepEqual(press('.'), { frames: 1 })
  assert.deepEqual(press(','), { frames: -1 })
  assert.deepEqual(press('PageDown'), { frames: 10 })
  assert.deepEqual(press('Home'), { frames: -Infinity })
})
