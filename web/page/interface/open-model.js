// The open model: the state behind the panel's model, weights and provider.

import { inputSize } from '../shared/contract.js'
import { threadsHere } from '../shared/model.js'
import { ui } from './elements.js'
import { complain, hideProgress, say, settle, showProgress, words } from './messages.js'
import {
  describe,
  offerVariants,
  offerWebGPU,
  showNoModel,
  showProof,
  withVariant,
} from './model-panel.js'
import { Model } from './worker-client.js'

/** @typedef {import('../shared/model.js').Provider} Provider */

export class OpenModel {
  /** The model that is open or being opened. @type {Model | null} */
  current = null
  /** A sentence about WebGPU in this browser. */
  webgpuHint = ''
  attempts = 0
  /** The panel's choices: model, weights, provider. */
  picked = ['', '', '']

  /** @param {import('../page.js').Page} page */
  constructor(page) {
    this.page = page
    ui.model.onchange = () => {
      settle('address')
      void this.pick()
    }
    ui.variant.onchange = ui.provider.onchange = () => void this.pick()
  }

  async start() {
    if (!isSecureContext) {
      complain(
        'model',
        `A browser runs models from ${location.origin} only over https, because it cannot check ` +
          'their files otherwise. Put a proxy with https in front of this server, or open it as ' +
          'localhost: ' +
          `\`ssh -L ${location.port}:localhost:${location.port} ${location.hostname}\`.`,
      )
      return
    }
    try {
      await this.list()
    } catch (error) {
      complain('model', words(error), () => void this.start())
    }
  }

  /** List the deployed models, and open the model in the address, or else the first. */
  async list() {
    this.webgpuHint = await offerWebGPU()
    ui.webgpu.textContent = this.webgpuHint
    const response = await fetch('/models.json')
    if (!response.ok) throw new Error(`/models.json: HTTP ${response.status}`)
    /** @type {string[]} */
    const models = await response.json()
    if (!models.length) {
      const advice = 'Run `uv run doit demo` or `uv run doit`, then try again.'
      complain('model', `No model is deployed yet. ${advice}`, () => void this.start())
      return
    }
    ui.model.replaceChildren(...models.map((name) => new Option(name)))
    const name = new URLSearchParams(location.search).get('model')
    if (name && models.includes(name)) ui.model.value = name
    else if (name !== null) {
      complain(
        'address',
        `No model “${name}” is deployed, so ${models[0]} is shown. Deployed: ${models.join(', ')}.`,
      )
    }
    await this.open()
  }

  async pick() {
    const { sequence, work } = this.page
    const loses = 'Another model redraws the masks of clicks, but the tracked masks are lost.'
    if (sequence.masks.frames.size && !(await work.mayGo(loses))) {
      ;[ui.model.value, ui.variant.value, ui.provider.value] = this.picked
      return
    }
    ui.webgpu.textContent = this.webgpuHint // the last model may have changed it
    void this.open()
  }

  async open() {
    const attempt = ++this.attempts
    const isLatest = () => attempt === this.attempts
    const { page } = this
    this.close()
    page.image.place = null
    page.everything.abandon()
    page.sequence.abandon()
    settle('model', 'work')
    showNoModel()
    page.display.refresh()
    const name = ui.model.value
    say(`Opening ${name}…`)
    const provider = /** @type {Provider} */ (ui.provider.value)
    let isProven = true
    try {
      isProven = await this.load(`/models/${name}`, provider, isLatest)
    } catch (error) {
      if (!isLatest()) return
      this.close()
      hideProgress()
      if (provider === 'webgpu') {
        ui.webgpu.textContent = `WebGPU cannot run ${name} here, so WASM is used: ${words(error)}`
        ui.provider.value = 'wasm'
        await this.open()
        return
      }
      say(`${name} is not ready.`)
      complain('model', `${name} cannot be used.\n${words(error)}`, () => void this.open())
      return
    }
    if (!isLatest()) return
    hideProgress()
    const ready = `${name} is ready${isProven ? '' : ', but not proven in a browser'}.`
    say(`${ready}${page.image.current ? '' : ' Open an image.'}`)
    await page.image.encode()
  }

  /**
   * @param {string} base the address of the model's folder
   * @param {Provider} provider
   * @param {() => boolean} isLatest
   * @returns {Promise<boolean>} whether a browser has proven the model
   */
  async load(base, provider, isLatest) {
    const response = await fetch(`${base}/manifest.json`, { cache: 'no-cache' })
    if (!response.ok) throw new Error(`${base}/manifest.json: HTTP ${response.status}`)
    const whole = await response.json()
    if (!isLatest()) return false
    const variant = offerVariants(whole, provider)
    const manifest = withVariant(whole, variant)
    this.picked = [ui.model.value, ui.variant.value, ui.provider.value]
    inputSize(manifest) // throws for a manifest from an earlier version of the build
    ui.about.textContent = describe(manifest)
    const isProven = showProof(whole, variant, provider)
    const opening = (this.current = new Model(manifest, showProgress))
    await opening.call('open', { base, provider, threads: threadsHere(), manifest })
    opening.opened = true
    return isProven
  }

  close() {
    this.current?.close()
    this.current = null
  }
}
