// The frames of a sequence: the shown frame, the tracked masks, and the running tracking.

import { claimDatabase } from '../frames/database.js'
import { answerOf, MaskStore, NOTHING } from '../frames/mask-store.js'
import { masked } from '../image/layers.js'
import { atFrame, currentOf, isGone, lastSteps } from '../image/objects.js'
import { clamp } from '../image/view.js'
import { inputSize } from '../shared/contract.js'
import { scaledPixels } from '../shared/image.js'
import { placement } from '../shared/preprocessing.js'
import { ui } from './elements.js'
import { complain, duration, hideProgress, say, settle, showProgress, words } from './messages.js'
import { encodeFrame } from './open-image.js'
import { followTimeline, frameRange, resetRange, showTimeline } from './timeline.js'

/** @typedef {import('../frames/mask-store.js').TrackedMask} TrackedMask */
/** @typedef {import('../frames/sequence.js').Sequence} Sequence */
/** @typedef {import('../image/objects.js').Step} Step */
/** @typedef {import('../shared/preprocessing.js').Placement} Placement */
/** @typedef {import('./timeline.js').Way} Way */
/** @typedef {import('./worker-client.js').Model} Model */

/** Whether a model can track objects. @param {Model} model */
const canTrack = ({ manifest }) => Boolean(/** @type {any} */ (manifest).video)

/**
 * A prompt, and the earlier prompts whose masks it refines.
 *
 * @param {Step} step
 * @returns {import('../frames/tracking-worker.js').ObjectPrompts}
 */
function promptsOf({ frame, id, prompt, refines }) {
  const prompts = [prompt]
  for (let before = refines; before; before = before.refines) prompts.unshift(before.prompt)
  return { frame, id, prompts }
}

export class SequenceView {
  /** @param {import('../page.js').Page} page */
  constructor(page) {
    this.page = page
    this.database = claimDatabase()
    this.masks = new MaskStore(this.database.then(({ masks }) => masks))
    /** The tracked masks of the shown frame. @type {import('../image/objects.js').Shown} */
    this.shown = NOTHING
    /** The frame to show. */
    this.wanted = 0
    /** Whether the shown frame must be read again. */
    this.isStale = false
    /** @type {Promise<void> | null} */
    this.turning = null
    /** Whether frames are shown as they are tracked. */
    this.watching = false
    /** Stops the running tracking. @type {AbortController | null} */
    this.stop = null
    /** The frame that a model without tracking encoded last. @type {number | null} */
    this.encoded = null
    followTimeline({
      onFrame: (frame) => this.scrub(frame),
      onTrack: (ways) => void this.track(ways),
      onGone: (where) => page.prompting.leave(where),
    })
  }

  /** Start with a newly opened image or sequence. @param {Sequence} image */
  opened(image) {
    this.abandon()
    this.wanted = 0
    ui.timeline.hidden = image.count === 1
    ui.objects.classList.remove('following')
    resetRange(image.count)
  }

  /** Drop all masks: another model or another sequence is open. */
  abandon() {
    this.stop?.abort()
    this.stop = null
    this.shown = NOTHING
    this.encoded = null
    void this.masks.clear()
  }

  /** Whether the tracker answers the prompts. @param {Model | null} model */
  answers(model) {
    return this.page.image.isSequence && model !== null && canTrack(model)
  }

  /**
   * Get a model ready for a sequence.
   *
   * @param {Model} model
   * @param {Sequence} image
   * @returns {Promise<[Placement, string]>} its frames' placement, and a sentence for the status
   */
  async ready(model, image) {
    this.encoded = null
    const { manifest } = model
    const able = canTrack(model)
    ui.noTracking.hidden = able
    ui.tracking.hidden = !able
    ui.objects.classList.toggle('following', able)
    const { count, width, height } = image
    // sam2 stretches the frames of a video, regardless of how a client prepares images.
    const resize = able ? 'stretch' : manifest.preprocessing.resize
    const place = placement(width, height, inputSize(manifest), resize)
    if (able) {
      model.pixelsOf = async (frame) => {
        if (!this.stop) showProgress('Encoding the frame')
        return scaledPixels(await image.read(frame), place)
      }
      const frames = { count, width, height }
      await model.call('follow', { frames, database: (await this.database).name })
    }
    return [place, `${image.file} has ${count} frames. Click an object on one of them.`]
  }

  /**
   * The answer to a prompt on a frame.
   *
   * @param {Step} step
   * @param {Model} model
   * @param {Placement} place
   */
  async answer(step, model, place) {
    /** @type {TrackedMask} */
    const { logits, iou, milliseconds } = await model.call('prompt', promptsOf(step))
    return answerOf(logits, iou, milliseconds, place)
  }

  /**
   * Encode the frame of a prompt, for a model that cannot track.
   *
   * @param {number} frame
   * @param {Model} model
   * @param {Placement} place
   */
  async encode(frame, model, place) {
    const image = this.page.image.current
    if (!image || this.encoded === frame) return
    showProgress('Encoding the frame')
    this.encoded = null
    await encodeFrame(image, frame, model, place)
    this.encoded = frame
    hideProgress()
  }

  /** Show a frame, after the frame that is being read. @param {number} frame */
  show(frame) {
    const { image } = this.page
    if (!image.current || !image.isSequence) return
    this.wanted = clamp(frame, 0, image.current.count - 1)
    this.timeline()
    this.turning ??= this.turn().finally(() => (this.turning = null))
  }

  /** Show a frame that the user chose. @param {number} frame */
  scrub(frame) {
    this.watching = false
    this.show(frame)
  }

  /** Show the frame again, with the current slice, channels and levels. */
  redraw() {
    this.isStale = true
    this.turning ??= this.turn().finally(() => (this.turning = null))
    return this.turning
  }

  async turn() {
    const { image, prompting } = this.page
    for (;;) {
      const { current } = image
      const frame = this.wanted
      if (!current || (frame === prompting.objects.frame && !this.isStale)) return
      this.isStale = false
      try {
        const picture = await current.read(frame)
        const shown = await this.masks.shown(frame, image.place)
        if (image.current !== current) continue
        current.show(picture)
        this.shown = shown
        prompting.showFrame(frame)
        if (!this.stop && image.isSequence) {
          const tracked = this.masks.frames.has(frame) ? ', tracked' : ''
          say(`Frame ${frame + 1} of ${current.count}${tracked}.`)
        }
      } catch (error) {
        if (image.current !== current) continue
        this.wanted = prompting.objects.frame
        this.timeline()
        complain('work', words(error))
        return
      }
    }
  }

  /** Redraw the timeline. */
  timeline() {
    const { image, prompting } = this.page
    if (!image.current || !image.isSequence) return
    const prompted = new Set(lastSteps(prompting.objects).map(({ frame }) => frame))
    const { count } = image.current
    const gone = currentOf(prompting.objects).steps.at(-1)?.gone
    showTimeline({ count, frame: this.wanted, prompted, tracked: this.masks.frames, gone })
  }

  /**
   * What to track: the objects, their absences and the range; or a sentence why nothing can be.
   *
   * @param {number} count of frames
   */
  plan(count) {
    const { objects } = this.page.prompting
    const entries = objects.entries.filter(({ stays }) => !stays)
    const ids = entries.map(({ id }) => id)
    if (!lastSteps(objects).some(({ id }) => ids.includes(id))) {
      const unticked = lastSteps(objects).length > 0
      return unticked
        ? 'There is nothing to track: tick an object in the list that has a click or a box.'
        : 'There is nothing to track yet: click an object on a frame first.'
    }
    const range = frameRange()
    const from = objects.frame
    if (!range || from < range.first || from > range.last) {
      return (
        `Expected a range within frames 1 to ${count} that includes the shown frame, ` +
        `${from + 1}: set “Frames”, or show another frame.`
      )
    }
    const all = Array.from({ length: count }, (_, frame) => frame)
    const gone = entries.map((entry) => {
      return { id: entry.id, frames: all.filter((frame) => isGone(entry, frame)) }
    })
    return { ids, gone, from, ...range }
  }

  /** Track objects from the shown frame. @param {Way[]} ways one after the other */
  async track(ways) {
    const { decoding, display, prompting } = this.page
    const { current: image, place } = this.page.image
    const model = this.page.model.current
    if (!image || !model || !place || this.stop) return
    settle('work')
    const plan = this.plan(image.count)
    if (typeof plan === 'string') {
      complain('work', plan)
      return
    }
    const stop = (this.stop = new AbortController())
    this.watching = true
    display.refresh()
    say('Tracking.')
    const start = performance.now()
    let done = 0
    /** @type {unknown} */
    let problem = null
    /** @type {Promise<unknown>} */
    let kept = Promise.resolve()
    try {
      await decoding.run()
      const { from, first, last, ids, gone } = plan
      const prompts = lastSteps(prompting.objects).map(promptsOf)
      const frames = { on: last - from + 1, back: from - first + 1 }
      const total = ways.reduce((sum, way) => sum + frames[way], 0)
      showProgress('Tracking', 0, total, 'frames')
      for (const way of ways) {
        const reverse = way === 'back'
        const args = { prompts, from, reverse, until: reverse ? first : last, ids, gone }
        await model.call('track', args, stop.signal, (part) => {
          showProgress('Tracking', ++done, total, 'frames')
          kept = kept.then(() => this.keep(part, stop, place)).catch((error) => {
            problem = error
            stop.abort()
          })
        })
        if (stop.signal.aborted) break
      }
      await kept // the last write may show a frame
      await this.masks.writing
    } catch (error) {
      problem = error
    }
    if (this.stop !== stop) return // another model or sequence was opened meanwhile
    while (this.turning) await this.turning
    this.stop = null
    hideProgress()
    this.page.work.change()
    await this.reload()
    const frames = done === 1 ? 'One frame' : `${done} frames`
    if (problem) complain('work', `Tracking failed.\n${words(problem)}`)
    const time = duration(performance.now() - start)
    say(`${frames} tracked in ${time}${stop.signal.aborted ? ', then cancelled' : ''}.`)
  }

  /**
   * Store the tracked masks of a frame, and show them.
   *
   * @param {{ frame: number, masks: TrackedMask[] }} part
   * @param {AbortController} stop
   * @param {Placement} place
   */
  async keep({ frame, masks }, stop, place) {
    // After the end of all objects, frames have no masks.
    if (this.stop !== stop || !masks.length) return
    const { prompting } = this.page
    for (const step of lastSteps(prompting.objects)) {
      const again = masks.find(({ id }) => step.frame === frame && step.id === id)
      // A correction on the way was decoded again.
      if (!again) continue
      delete step.pixels
      step.answer = answerOf(again.logits, again.iou, again.milliseconds, place)
    }
    const shownFrame = prompting.objects.frame
    await this.masks.add(frame, masks)
    if (this.stop !== stop) return
    this.page.work.changes++ // written when tracking ends
    if (this.watching) this.show(frame)
    else this.timeline()
    if (frame === shownFrame) await this.reload()
  }

  /** Read the tracked masks of the shown frame. */
  async reload() {
    const { display, image, prompting } = this.page
    const { frame } = prompting.objects
    const shown = await this.masks.shown(frame, image.place)
    if (prompting.objects.frame !== frame) return
    this.shown = shown
    display.refresh()
  }

  /**
   * The masks of all frames, one after the other.
   *
   * @returns {AsyncGenerator<{ frame: number, shown: import('../image/layers.js').Masked[] }>}
   */
  async *frames() {
    const { current: image, place } = this.page.image
    const { objects } = this.page.prompting
    for (let frame = 0; image && frame < image.count; frame++) {
      showProgress('Saving', frame, image.count, 'frames')
      const tracked = await this.masks.shown(frame, place)
      yield { frame, shown: masked(atFrame(objects, frame), tracked) }
    }
    hideProgress()
  }
}
