// When another model is offered.
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { advice } from '../page/interface/advice.js'

test('where an image takes seconds, EdgeTAM is offered', () => {
  assert.match(advice({ model_type: 'sam2_hiera_tiny' }, 7000), /doit deploy:edgetam/)
})

test('a model that is fast enough has no advice', () => {
  assert.equal(advice({ model_type: 'sam2_hiera_tiny' }, 800), '')
})

test('EdgeTAM is not offered in its own place', () => {
  assert.equal(advice({ model_type: 'edgetam' }, 7000), '')
})

test('SAM 1 has a faster one of its own, and that has no advice', () => {
  assert.match(advice({ model_type: 'vit_b' }, 7000), /doit deploy:mobile_sam/)
  assert.equal(advice({ model_type: 'vit_t' }, 7000), '')
})
