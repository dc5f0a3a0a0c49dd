// The look of masks: their colours, and the stored settings.
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { colorOf, PALETTE, unusedColor } from '../page/image/colors.js'
import { storedLook, storeLook } from '../page/image/look.js'

const none = () => {
  throw new Error('storage is not allowed')
}
/** @param {string | null} value */
const storing = (value) => () => ({ getItem: () => value })

test('the first object is magenta if nothing is stored', () => {
  assert.equal(storedLook(storing(null)).color, '#ee3377')
})

test('a browser without storage has the default look', () => {
  assert.deepEqual(storedLook(none), storedLook(storing(null)))
  storeLook(storedLook(none), none)
})

test('a stored look is restored', () => {
  let kept = ''
  const look = { color: '#ee7733', opacity: 0.7, outline: false }
  storeLook(look, () => ({ setItem: (_, value) => (kept = value) }))
  assert.deepEqual(storedLook(storing(kept)), look)
})

test('an invalid stored look is not used', () => {
  const usual = storedLook(storing(null))
  assert.deepEqual(storedLook(storing('{')), usual)
  assert.deepEqual(storedLook(storing('{"color": "red", "opacity": 7, "outline": 1}')), usual)
})

test('a further object gets an unused colour', () => {
  assert.equal(unusedColor(['#ee3377']), '#ee7733')
  assert.equal(unusedColor(['#33bbee', '#ee7733']), '#ee3377')
  const many = Array.from({ length: 255 }, (_, index) => colorOf(index + 1))
  assert.ok(many.every((color) => /^#[0-9a-f]{6}$/.test(color)))
  assert.ok(!PALETTE.includes(unusedColor(PALETTE)))
})
