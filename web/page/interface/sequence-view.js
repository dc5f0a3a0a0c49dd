// What the page does with the frames of a sequence: shows one, tracks objects, gives all masks.

import { inputSize } from '../shared/contract.js'
import { claimDatabase, openStore } from '../frames/database.js'
import { ui } from './elements.js'
import { scaledPixels } from '../shared/image.js'
import { masked } from '../image/layers.js'
import { complain, duration, hideProgress, say, settle, showProgress, words } from './messages.js'
import * as set from '../image/objects.js'
import { placement } from '../shared/preprocessing.js'
import { followTimeline, showTimeline } from './timeline.js'
import { answerOf, NOTHING, Tracks } from '../frames/mask-store.js'

/** @typedef {import('./worker-client.js').Model} Model */
/** @typedef {import('../image/objects.js').Objects} Objects */
/** @typedef {import('../image/objects.js').Step} Step */
/** @typedef {import('../shared/preprocessing.js').Placement} Placement */
/** @typedef {import('../frames/sequence.js').Sequence} Sequence */
/** @typedef {import('./timeline.js').Way} Way */
/** @typedef {import('../frames/mask-store.js').Found} Found */
/**
 * @typedef {object} Page
 * @property {() => { image: Sequence | null, model: Model | null, place: Placement | null,
 *   objects: Objects }} state
 * @property {(frame: number) => void} turn to a frame, whose picture is there
 * @property {() => void} refresh
 * @property {() => Promise<void>} decodePrompts
 */

/** Whether a model can follow objects. @param {Model} model */
const tracks = ({ manifest }) => Boolean(/** @type {any} */ (manifest).video)

/**
 * A prompt, and those before it whose masks it refines.
 *
 * @param {Step} step
 * @returns {import('../frames/tracking-worker.js').Said}
 */
function saidOf({ frame, id, prompt, refines }) {
  const prompts = [prompt]
  for (let before = refines; before; before = before.refines) prompts.unshift(before.prompt)
  return { frame, id, prompts }
}

export class Following {
  /** @param {Page} page */
  constructor(page) {
    this.page = page
    this.database = claimDatabase()
    this.tracks = new Tracks(this.database.then((name) => openStore(name, 'masks')))
    /** The tracked masks of the frame that is shown. @type {import('../frames/mask-store.js').Shown} */
    this.shown = NOTHING
    /** The frame that a person asked for last. */
    this.wanted = 0
    /** @type {Promise<void> | null} */
    this.turning = null
    /** Whether frames are shown as they are tracked. */
    this.watching = false
    /** Stops tracking. @type {AbortController | null} */
    this.stop = null
    /** The frame that a model without tracking has encoded. @type {number | null} */
    this.encoded = null
    followTimeline({
      onFrame: (frame) => this.scrub(frame),
      onTrack: (ways) => void this.track(ways),
    })
  }

  /** Another image or sequence is open. @param {Sequence} image */
  opened(image) {
    this.abandon()
    this.wanted = 0
    ui.timeline.hidden = image.count === 1
  }

  /** What was tracked is of another model, or of another sequence. */
  abandon() {
    this.stop?.abort()
    this.stop = null
    this.shown = NOTHING
    this.encoded = null
    void this.tracks.clear()
  }

  /** Whether prompts are answered by what tracks. @param {Model | null} model */
  answers(model) {
    return this.isOpen && model !== null && tracks(model)
  }

  get isOpen() {
    return (this.page.state().image?.count ?? 1) > 1
  }

  /**
   * Get a model ready for a sequence.
   *
   * @param {Model} model
   * @param {Sequence} image
   * @returns {Promise<Placement>}
   */
  async ready(model, image) {
    const { manifest } = model
    const able = tracks(model)
    ui.noTracking.hidden = able
    ui.tracking.hidden = !able
    const { count, width, height } = image
    // sam2 stretches the frames of a video, whatever a client does with images.
    const resize = able ? 'stretch' : manifest.preprocessing.resize
    const place = placement(width, height, inputSize(manifest), resize)
    if (!able) return place
    model.pixelsOf = async (frame) => {
      if (!this.stop) showProgress('Encoding the frame')
      return scaledPixels(await image.read(frame), place)
    }
    await model.call('follow', { frames: { count, width, height }, database: await this.database })
    return place
  }

  /**
   * The answer to a prompt on a frame.
   *
   * @param {Step} step
   * @param {Model} model
   * @param {Placement} place
   */
  async answer(step, model, place) {
    /** @type {Found} */
    const { logits, iou, milliseconds } = await model.call('prompt', saidOf(step))
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
    const { image } = this.page.state()
    if (!image || this.encoded === frame) return
    showProgress('Encoding the frame')
    this.encoded = null
    const rgba = scaledPixels(await image.read(frame), place)
    const { milliseconds } = await model.call('encode', { rgba, place })
    ui.encoderTime.textContent = duration(milliseconds)
    this.encoded = frame
    hideProgress()
  }

  /** Show a frame, as soon as those that were asked for before are read. @param {number} frame */
  show(frame) {
    const { image } = this.page.state()
    if (!image || image.count === 1) return
    this.wanted = Math.min(Math.max(frame, 0), image.count - 1)
    this.timeline()
    this.turning ??= this.turn().finally(() => (this.turning = null))
  }

  /** Show a frame that a person asked for. @param {number} frame */
  scrub(frame) {
    this.watching = false
    this.show(frame)
  }

  async turn() {
    for (;;) {
      const { image, place, objects } = this.page.state()
      const frame = this.wanted
      if (!image || frame === objects.frame) return
      try {
        const picture = await image.read(frame)
        const shown = await this.tracks.shown(frame, place)
        if (this.page.state().image !== image) continue
        image.show(picture)
        this.shown = shown
        this.page.turn(frame)
        if (!this.stop) say(this.sentence())
      } catch (error) {
        if (this.page.state().image !== image) continue
        this.wanted = objects.frame
        this.timeline()
        complain('work', words(error))
        return
      }
    }
  }

  sentence() {
    const { image, objects } = this.page.state()
    const tracked = this.tracks.frames.has(objects.frame) ? ', tracked' : ''
    return `Frame ${objects.frame + 1} of ${image?.count}${tracked}.`
  }

  /** Draw the timeline anew. */
  timeline() {
    const { image, objects } = this.page.state()
    if (!image || image.count === 1) return
    const prompted = new Set(set.lastSteps(objects).map(({ frame }) => frame))
    const { frames: tracked } = this.tracks
    showTimeline({ count: image.count, frame: this.wanted, prompted, tracked })
  }

  /** Follow all objects from the frame that is shown. @param {Way[]} ways one after the other */
  async track(ways) {
    const { image, model, place } = this.page.state()
    if (!image || !model || !place || this.stop) return
    settle('work')
    if (!set.lastSteps(this.page.state().objects).length) {
      complain('work', 'There is nothing to track yet: click an object on a frame first.')
      return
    }
    const stop = (this.stop = new AbortController())
    this.watching = true
    this.page.refresh()
    say('Tracking.')
    const start = performance.now()
    let done = 0
    /** @type {unknown} */
    let problem = null
    try {
      await this.page.decodePrompts()
      const { objects } = this.page.state()
      const from = objects.frame
      const said = set.lastSteps(objects).map(saidOf)
      const frames = { on: image.count - from, back: from + 1 }
      const total = ways.reduce((sum, way) => sum + frames[way], 0)
      showProgress('Tracking', 0, total, 'frames')
      for (const way of ways) {
        const args = { said, from, reverse: way === 'back' }
        await model.call('track', args, stop.signal, (part) => {
          showProgress('Tracking', ++done, total, 'frames')
          this.note(part, stop).catch((error) => {
            problem = error
            stop.abort()
          })
        })
        if (stop.signal.aborted) break
      }
      await this.tracks.writing
    } catch (error) {
      problem = error
    }
    if (this.stop !== stop) return // another model or sequence was opened meanwhile
    await this.turning
    this.stop = null
    hideProgress()
    await this.look()
    const frames = done === 1 ? 'One frame' : `${done} frames`
    if (problem) complain('work', `Tracking failed.\n${words(problem)}`)
    const time = duration(performance.now() - start)
    say(`${frames} tracked in ${time}${stop.signal.aborted ? ', then cancelled' : ''}.`)
  }

  /**
   * Keep what was found on a frame, and show it.
   *
   * @param {{ frame: number, found: Found[] }} part
   * @param {AbortController} stop
   */
  async note({ frame, found }, stop) {
    if (this.stop !== stop) return
    const { place, objects } = this.page.state()
    const at = /** @type {Placement} */ (place)
    for (const step of set.lastSteps(objects)) {
      const again = found.find(({ id }) => step.frame === frame && step.id === id)
      // A correction that was passed again was made again.
      if (again) step.answer = answerOf(again.logits, again.iou, again.milliseconds, at)
    }
    await this.tracks.add(frame, found)
    if (this.stop !== stop) return
    if (this.watching) this.show(frame)
    else this.timeline()
    if (frame === objects.frame) await this.look()
  }

  /** Read anew what tracking found on the frame that is shown. */
  async look() {
    const { place, objects } = this.page.state()
    const shown = await this.tracks.shown(objects.frame, place)
    if (this.page.state().objects.frame !== objects.frame) return
    this.shown = shown
    this.page.refresh()
  }

  /**
   * The masks of all frames, one after the other.
   *
   * @returns {AsyncGenerator<{ frame: number, shown: import('../image/layers.js').Masked[] }>}
   */
  async *frames() {
    const { image, place, objects } = this.page.state()
    for (let frame = 0; image && frame < image.count; frame++) {
      showProgress('Saving', frame, image.count, 'frames')
      const tracked = await this.tracks.shown(frame, place)
      yield { frame, shown: masked(set.atFrame(objects, frame), tracked) }
    }
    hideProgress()
  }
}
