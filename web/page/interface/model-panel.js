// What the panel says of a model: its weights, where it runs, what is proven of it.

import { refines } from '../shared/contract.js'
import { ui } from './elements.js'
import { mebibytes } from './messages.js'
import { adapter, threadsHere } from '../shared/model.js'
import { proofOf } from './proof-text.js'

/** @typedef {import('../shared/model.js').Provider} Provider */

/**
 * List the variants that are deployed, and keep the one that was picked if there is such.
 *
 * @param {any} manifest
 * @param {Provider} provider
 * @returns {string | undefined} the name of the one to open
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

/** The files of a variant that track, by graph. @param {any} manifest @param {any} variant */
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

/** Take back what was said of the model before. */
export function showNoModel() {
  ui.about.textContent = ui.proof.textContent = ''
  ui.proof.classList.remove('unproven')
}

/**
 * Say what this model does of what not every model does.
 *
 * @param {import('../shared/contract.js').Manifest} manifest
 * @param {boolean} tracks whether prompts are of objects that it follows
 */
export function explain(manifest, tracks) {
  if (tracks) {
    ui.candidatesHelp.textContent =
      'Of an object that is tracked the model draws one mask on each frame, and predicts its IoU.'
    ui.refineHelp.textContent = 'Each further click on a frame corrects the mask that is shown.'
    return
  }
  const several = { multi: 'three', ranked: 'three', all: 'four', best: null, single: null }
  const count = several[manifest.masks?.choice ?? 'multi']
  ui.candidatesHelp.textContent = count
    ? `A click can mean a part or the whole: the model draws ${count} masks, and predicts the IoU ` +
      'of each. The best is shown.'
    : 'This model draws one mask for a prompt, and predicts its IoU.'
  ui.refineHelp.textContent = refines(manifest)
    ? 'The next click corrects the mask that is shown, instead of drawing a new one.'
    : 'This model cannot start from a mask.'
}

/** Choose the faster of where models can run. @returns {Promise<string>} a sentence on it */
export async function offerWebGPU() {
  const found = await adapter()
  if (!found) {
    const option = ui.provider.querySelector('option[value=webgpu]')
    option?.setAttribute('disabled', '')
    return `This browser has no WebGPU: models run on WASM, ${threads()}.`
  }
  if (found.software) {
    return `WebGPU is emulated here (${found.name}), and slow: WASM is used.`
  }
  ui.provider.value = 'webgpu'
  return `WebGPU: ${found.name}. WASM would use ${threads()}.`
}

function threads() {
  const count = threadsHere()
  return count === 1 ? 'one thread' : `${count} threads`
}
