// When another model is offered.
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { advice } from '../page/interface/advice.js'

test('EdgeTAM is offered if an image takes seconds', () => {
  assert.match(advice({ model_type: 'sam2_hiera_tiny' }, 7000), /doit deploy:edgetam/)
})

test('a model that is fast enough gets no advice', () => {
  assert.equal(advice({ model_type: 'sam2_hiera_tiny' }, 800), '')
})

test('EdgeTAM is not offered instead of itself', () => {
  assert.equal(advice({ model_type: 'edgetam' }, 7000), '')
})

test('SAM 1 has a faster model of its own, which gets no advice', () => {
  assert.match(advice({ model_type: 'vit_b' }, 7000), /doit deploy:mobile_sam/)
  assert.equal(advice({ model_type: 'vit_t' }, 7000), '')
})
