// The text about a model's proof.
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

test('a model is proven on a provider where a browser ran it correctly', () => {
  const found = proofOf(run({ proven: true, parts: ['encoder', 'decoder'] }), 'fp32', 'wasm')
  assert.deepEqual(found, { proven: true, text: 'Proven on WASM in Chromium 150.' })
  const only = proofOf(run({ proven: true, parts: ['decoder'] }), 'fp32', 'wasm')
  assert.equal(only.text, 'Proven on WASM in Chromium 150, only the decoder.')
})

test('the reason why a model is not proven is shown', () => {
  const { proven, text } = proofOf(run({ proven: false, reason: 'the masks differ' }), 'fp32', 'wasm')
  assert.equal(proven, false)
  assert.equal(text, 'Not proven on WASM: the masks differ.')
})

test('a proof on one provider says nothing about the other', () => {
  const { proven, text } = proofOf(run({ proven: true }), 'fp32', 'webgpu')
  assert.equal(proven, false)
  assert.match(text, /^Not proven on WebGPU: /)
})

test('the adapter features that files need are shown with their proof on WebGPU', () => {
  const files = { 'encoder_half.onnx': { needs: { onnxruntime: '1.17', webgpu: 'shader-f16' } } }
  /** @param {object} figures @param {import('../page/shared/model.js').Provider} provider */
  const textOf = (figures, provider) => {
    const browser = { browser: 'Chromium 150', providers: { [provider]: figures } }
    const variants = [{ name: 'half', files: { encoder: 'encoder_half.onnx' }, browser }]
    return proofOf({ files, variants }, 'half', provider).text
  }
  const needed = ' It needs an adapter with shader-f16.'
  assert.ok(textOf({ proven: true }, 'webgpu').endsWith(needed))
  assert.ok(textOf({ proven: false, reason: 'refused' }, 'webgpu').endsWith(needed))
  assert.ok(!textOf({ proven: true }, 'wasm').includes('shader-f16'))
})
