// The panel's texts about a model: its weights, where it runs, its proof.

import { refines } from '../shared/contract.js'
import { ui } from './elements.js'
import { mebibytes } from './messages.js'
import { adapter, threadsHere } from '../shared/model.js'
import { proofOf } from './proof-text.js'

/** @typedef {import('../shared/model.js').Provider} Provider */

/**
 * List the deployed variants, and keep the picked one if it is among them.
 *
 * @param {any} manifest
 * @param {Provider} provider
 * @returns {string | undefined} the name of the variant to open
 */
export function offerVariants(manifest, provider) {
  /** @type {string[]} */
  const names = (manifest.variants ?? [])
    .filter((/** @type {any} */ { deployed }) => deployed)
    .map((/** @type {any} */ { name }) => name)
  const picked = names.includes(ui.variant.value) ? ui.variant.value : names[0]
  const recommended = names.length > 1 ? manifest.recommended?.[provider]?.variant : null
  const label = (/** @type {string} */ name) => (name === recommended ? `${name} (recommended)` : name)
  ui.variant.replaceChildren(...names.map((name) => new Option(label(name), name)))
  if (picked) ui.variant.value = picked
  ui.variant.disabled = names.length < 2
  return picked
}

/** @param {any} manifest @param {string | undefined} name */
export function withVariant(manifest, name) {
  const variant = (manifest.variants ?? []).find((/** @type {any} */ each) => each.name === name)
  if (!variant) return manifest
  return {
    ...manifest,
    encoder: { ...manifest.encoder, file: variant.files.encoder },
    decoder: { ...manifest.decoder, file: variant.files.decoder },
    ...(manifest.video && { video: { ...manifest.video, files: tracking(manifest, variant) } }),
  }
}

/** A variant's tracking files, by graph. @param {any} manifest @param {any} variant */
const tracking = ({ video }, variant) =>
  Object.fromEntries(Object.keys(video.files).map((graph) => [graph, variant.files[graph]]))

/** @param {any} manifest */
export function describe(manifest) {
  const sizes = [manifest.encoder, manifest.decoder].map(({ file }) => manifest.files[file].size)
  const total = sizes.reduce((sum, size) => sum + size, 0)
  const trained = manifest.checkpoint?.synthetic ? 'random weights: masks mean nothing' : ''
  const architecture = manifest.model_type ?? manifest.config
  return [architecture, mebibytes(total), trained].filter(Boolean).join(' · ')
}

/** @param {any} manifest @param {string | undefined} variant @param {Provider} provider */
export function showProof(manifest, variant, provider) {
  const { proven, text } = proofOf(manifest, variant, provider)
  ui.proof.textContent = text
  ui.proof.classList.toggle('unproven', !proven)
  return proven
}

/** Clear the texts about the previous model. */
export function showNoModel() {
  ui.about.textContent = ui.proof.textContent = ''
  ui.proof.classList.remove('unproven')
}

/**
 * Explain the features that not every model has.
 *
 * @param {import('../shared/contract.js').Manifest} manifest
 * @param {boolean} tracks whether the model tracks the prompted objects
 */
export function explain(manifest, tracks) {
  if (tracks) {
    ui.candidatesHelp.textContent =
      'The model draws one mask of a tracked object on each frame, and predicts its IoU.'
    ui.refineHelp.textContent = 'Each further click on a frame corrects the shown mask.'
    return
  }
  const several = { multi: 'three', ranked: 'three', all: 'four', best: null, single: null }
  const count = several[manifest.masks?.choice ?? 'multi']
  ui.candidatesHelp.textContent = count
    ? `A click can mean a part or the whole: the model draws ${count} masks, and predicts the IoU ` +
      'of each. The best is shown.'
    : 'This model draws one mask for a prompt, and predicts its IoU.'
  ui.refineHelp.textContent = refines(manifest)
    ? 'The next click corrects the shown mask instead of drawing a new one.'
    : 'This model cannot start from a mask.'
}

/** Choose the faster provider. @returns {Promise<string>} a sentence about the choice */
export async function offerWebGPU() {
  const gpu = await adapter()
  if (!gpu) {
    const option = ui.provider.querySelector('option[value=webgpu]')
    option?.setAttribute('disabled', '')
    return `This browser has no WebGPU, so models run on WASM with ${threads()}.`
  }
  if (gpu.software) {
    return `WebGPU is emulated here (${gpu.name}) and slow, so models run on WASM.`
  }
  ui.provider.value = 'webgpu'
  return `WebGPU: ${gpu.name}. WASM would use ${threads()}.`
}

function threads() {
  const count = threadsHere()
  return count === 1 ? 'one thread' : `${count} threads`
}
