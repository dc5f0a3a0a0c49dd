// What a person is told of a model's proof.
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { proofOf } from '../page/interface/proof-text.js'

/** @param {object | null} browser */
const manifest = (browser) => ({ browser, variants: [{ name: 'fp32', ...(browser && { browser }) }] })
/** @param {object} wasm */
const run = (wasm) => manifest({ browser: 'Chromium 150', providers: { wasm } })

test('a model that no browser has run is not proven', () => {
  const { proven, text } = proofOf(manifest(null), 'fp32', 'wasm')
  assert.equal(proven, false)
  assert.equal(text, 'Not proven in a browser: no browser has run these files.')
})

test('a model is proven where a browser ran it as it should', () => {
  const found = proofOf(run({ proven: true, parts: ['encoder', 'decoder'] }), 'fp32', 'wasm')
  assert.deepEqual(found, { proven: true, text: 'Proven on WASM in Chromium 150.' })
  const only = proofOf(run({ proven: true, parts: ['decoder'] }), 'fp32', 'wasm')
  assert.equal(only.text, 'Proven on WASM in Chromium 150, the decoder alone.')
})

test('the reason that keeps a model from being proven is said', () => {
  const { proven, text } = proofOf(run({ proven: false, reason: 'the masks differ' }), 'fp32', 'wasm')
  assert.equal(proven, false)
  assert.equal(text, 'Not proven on WASM: the masks differ.')
})

test('a proof on one provider says nothing of the other', () => {
  const { proven, text } = proofOf(run({ proven: true }), 'fp32', 'webgpu')
  assert.equal(proven, false)
  assert.match(text, /^Not proven on WebGPU: /)
})
