// Runs the decoder until each object has its mask, one step at a time.

import { maskOf } from '../image/masks.js'
import { WHOLE, nameOf, within } from '../image/crop.js'
import { currentOf, lastStep, unanswered } from '../image/objects.js'
import { findRole, refines } from '../shared/contract.js'
import { best } from '../shared/feeds.js'
import { complain, hideProgress, words } from './messages.js'

/** @typedef {import('../image/objects.js').Step} Step */

export class Decoding {
  running = false
  /** Resolves when the last run ends. */
  done = Promise.resolve()

  /** @param {import('../page.js').Page} page */
  constructor(page) {
    this.page = page
  }

  /** Decode all waiting steps, then draw. */
  run() {
    this.page.display.enable()
    if (!this.running) this.done = this.answerAll()
    return this.done
  }

  async answerAll() {
    this.running = true
    const { page } = this
    const model = page.model.current
    /** @type {Step | null} */
    let last = null
    try {
      for (let step = unanswered(page.prompting.objects); step && model && page.image.place; ) {
        await this.answer(step, model, page.image.place)
        last = step
        step = unanswered(page.prompting.objects)
      }
    } catch (error) {
      // While other pixels are encoded, an earlier step may fail; it is decoded again later.
      const isCurrent = page.model.current === model && page.image.place
      if (isCurrent) complain('work', `The decoder failed.\n${words(error)}`)
    }
    this.running = false
    if (page.image.isSequence && !page.isBusy) hideProgress()
    page.display.scene.repaint()
    if (last?.answer && last === lastStep(currentOf(page.prompting.objects))) {
      const detail = { decoder: last.answer.milliseconds }
      performance.measure('prompt to mask', { start: last.since, detail })
    }
    page.display.enable()
    page.display.announce()
    if (last) page.work.write()
  }

  /**
   * Run the decoder for a step, and first for the step whose mask it starts from.
   *
   * @param {Step} step
   * @param {import('./worker-client.js').Model} model
   * @param {import('../shared/preprocessing.js').Placement} place
   */
  async answer(step, model, place) {
    if (step.answer) return
    const { image, sequence } = this.page
    if (sequence.answers(model)) {
      step.answer = await sequence.answer(step, model, place)
      return
    }
    if (image.isSequence) await sequence.encode(step.frame, model, place)
    const { manifest } = model
    const { around, crop } = step
    if (around && !around.pixels) await this.answer(around, model, place)
    const { prompt, isWhole } = crop ? within(step.prompt, crop) : { ...step, isWhole: true }
    // Prompts outside the crop only have an effect through the mask that they drew.
    const before = refines(manifest) ? (step.refines ?? (isWhole ? null : around)) : null
    if (before && !before.pixels) await this.answer(before, model, place)
    const used = crop ? await this.page.views.encode(crop, model) : place
    const side = Number(findRole(manifest.decoder.inputs, 'mask_input')?.shape[3])
    const previous = maskOf(before ?? null)?.logitsIn(used, side) ?? null
    const name = crop ? nameOf(crop) : WHOLE
    const decoded = await model.call('decode', { prompt, place: used, previous, name })
    const threshold = manifest.prompts.mask_threshold
    step.answer = { ...decoded, best: best(manifest, decoded.scores), threshold, place: used }
  }
}
