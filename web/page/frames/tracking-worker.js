// The worker's part of tracking: a model's graphs in onnxruntime-web, and a tracker that runs them.

import { createSession, encode, fetchFiles } from '../shared/model.js'
import { placement } from '../shared/preprocessing.js'
import { Tracker } from '../shared/tracker.js'
import { graphRunner } from '../shared/tracking-graphs.js'

/** @typedef {import('../shared/model.js').Session} Session */
/** @typedef {import('../shared/preprocessing.js').Prompt} PagePrompt */
/** @typedef {import('../shared/tracker.js').Result} Result */
/** @typedef {import('./mask-store.js').TrackedMask} TrackedMask */
/**
 * All prompts of an object on a frame; each refines the mask that the one before drew.
 *
 * @typedef {{ frame: number, id: number, prompts: PagePrompt[] }} ObjectPrompts
 */
/** Frames on which the user marked an object as absent. @typedef {{ id: number, frames: number[] }} Gone */
/**
 * @typedef {object} Opened
 * @property {import('../shared/model.js').Runtime} ort
 * @property {Session} encoder
 * @property {any} manifest of a model that tracks
 * @property {import('../shared/model.js').Provider} provider
 */

/**
 * Fetch the tracking graphs, or take them from the cache, and create their sessions.
 *
 * @param {Opened} opened
 * @param {string} base
 * @param {(loaded: number, total: number) => void} onProgress bytes
 * @returns {Promise<Record<string, Session>>} by graph
 */
export async function trackingSessions({ ort, manifest, provider }, base, onProgress) {
  /** @type {Record<string, Session>} */
  const sessions = {}
  const { files } = manifest.video
  for await (const [graph, bytes] of fetchFiles(base, files, manifest, onProgress)) {
    sessions[graph] = await createSession(ort, bytes, provider)
  }
  return sessions
}

/**
 * A tracker that runs these sessions.
 *
 * @param {Opened} opened
 * @param {Record<string, Session>} sessions
 * @param {import('../shared/tracker.js').Frames} frames
 * @param {import('./database.js').Store} store
 * @param {(frame: number) => Promise<Uint8ClampedArray>} pixels of a frame, at the encoder's size
 */
export function trackerOf({ ort, encoder, manifest }, sessions, frames, store, pixels) {
  const { image_size: size } = manifest.video
  const place = placement(frames.width, frames.height, size, 'stretch')
  return new Tracker({
    constants: manifest.video,
    frames,
    store,
    features: async (frame) =>
      /** @type {import('../shared/tracker.js').Features} */ (
        await encode(ort, encoder, manifest, await pixels(frame), place)
      ),
    run: graphRunner(ort, (graph) => sessions[graph]),
  })
}

/** Tracks prompted objects through a sequence. */
export class Tracking {
  /** @param {Tracker} tracker that has no prompt yet */
  constructor(tracker) {
    this.tracker = tracker
    /** The tracker's prompts, by object and frame. @type {Map<string, ObjectPrompts>} */
    this.prompted = new Map()
  }

  /**
   * Give the tracker all prompts of an object on a frame; it may already have the first of them.
   *
   * @param {ObjectPrompts} all
   * @returns {Promise<TrackedMask>}
   */
  async prompt(all) {
    const start = performance.now()
    const { frame, id, prompts } = all
    const key = keyOf(all)
    const before = this.prompted.get(key)?.prompts ?? []
    const goesOn = before.every((each, index) => isSame(each, prompts[index]))
    if (!goesOn) await this.forget({ frame, id })
    for (let count = goesOn ? before.length : 0; count < prompts.length; count++) {
      await this.tracker.prompt(frame, id, promptOf(prompts[count]))
      this.prompted.set(key, { frame, id, prompts: prompts.slice(0, count + 1) })
    }
    const result = /** @type {Result} */ (await this.tracker.result(frame, id))
    return maskOf(id, result, performance.now() - start)
  }

  /**
   * Remove the prompts of an object on a frame. If the object has no others, the tracker forgets it: a
   * wrong mask must not be refined.
   *
   * @param {{ frame: number, id: number }} all
   */
  async forget(all) {
    this.prompted.delete(keyOf(all))
    if ([...this.prompted.values()].some(({ id }) => id === all.id)) {
      this.tracker.clearPrompts(all.frame, all.id)
    } else {
      await this.tracker.remove(all.id)
    }
  }

  /**
   * Track objects from a frame on.
   *
   * @param {object} args
   * @param {ObjectPrompts[]} args.prompts of all objects on all frames; any other prompts are removed
   * @param {number} args.from
   * @param {boolean} args.reverse
   * @param {number} [args.until] the last frame
   * @param {number[]} [args.ids] of the objects to track; by default all
   * @param {Gone[]} [args.gone]
   * @param {() => boolean} stopped
   * @returns {AsyncGenerator<{ frame: number, masks: TrackedMask[] }>}
   */
  async *track({ prompts, from, reverse, until, ids, gone = [] }, stopped) {
    await this.agree(prompts)
    this.leave(gone)
    const away = new Map(gone.map(({ id, frames }) => [id, new Set(frames)]))
    const follows = (/** @type {number} */ id, /** @type {number} */ frame) =>
      (ids?.includes(id) ?? true) && !away.get(id)?.has(frame)
    const signal = /** @type {AbortSignal} */ ({
      get aborted() {
        return stopped()
      },
    })
    const next = from + (reverse ? -1 : 1)
    const start = this.startOf(from, next, (id) => follows(id, from))
    if (from === until && start === next) return
    let since = performance.now()
    const frames = this.tracker.track({ from: start, reverse, signal, follows })
    for await (const { frame, objects } of frames) {
      const each = (performance.now() - since) / objects.length
      const masks = objects.map(({ object, ...result }) => maskOf(object, result, each))
      // The frame was redrawn without its correction: make the correction again, and track on from it.
      for (const correction of this.correctionsOn(frame)) {
        if (!follows(correction.id, frame)) continue
        this.prompted.delete(keyOf(correction))
        const again = await this.prompt(correction)
        masks.splice(masks.findIndex(({ id }) => id === again.id), 1, again)
      }
      await this.tracker.settlePrompts()
      yield { frame, masks }
      if (frame === until) return
      since = performance.now()
    }
  }

  /** Give the tracker exactly these prompts. @param {ObjectPrompts[]} prompts */
  async agree(prompts) {
    const keys = new Set(prompts.map(keyOf))
    for (const each of [...this.prompted.values()]) {
      if (!keys.has(keyOf(each))) await this.forget(each)
    }
    for (const each of prompts) await this.prompt(each)
  }

  /** Forget the memories of objects on frames where they are absent. @param {Gone[]} gone */
  leave(gone) {
    for (const { id, frames } of gone) {
      const history = this.tracker.objects.get(id)?.history
      for (const frame of frames) {
        history?.others.delete(frame)
        history?.tracked.delete(frame)
      }
    }
  }

  /** The prompts that were made on a frame after it was tracked. @param {number} frame */
  correctionsOn(frame) {
    return [...this.prompted.values()].filter((each) => {
      const history = this.tracker.objects.get(each.id)?.history
      return each.frame === frame && history && !history.conditioning.has(frame)
    })
  }

  /**
   * The frame where tracking starts. It is the next one if the frame was corrected, because starting
   * there sam2 would redraw it; but not if another object has no mask on the frame.
   *
   * @param {number} from
   * @param {number} next
   * @param {(id: number) => boolean} follows
   */
  startOf(from, next, follows) {
    const followed = [...this.tracker.objects].filter(([id]) => follows(id))
    const histories = followed.map(([, { history }]) => history)
    const corrected = histories.some(({ pending }) => pending.get(from)?.conditions === false)
    const complete = histories.every((history) => history.newest(from))
    return corrected && complete && next !== 0 ? next : from
  }
}

/** @param {{ frame: number, id: number }} prompts */
const keyOf = ({ frame, id }) => `${id}/${frame}`

/** @param {unknown} one @param {unknown} other */
const isSame = (one, other) => JSON.stringify(one) === JSON.stringify(other)

/** @param {number} id @param {Result} result @param {number} milliseconds @returns {TrackedMask} */
function maskOf(id, { lowResMasks, objectScore, iou }, milliseconds) {
  return { id, logits: lowResMasks, score: objectScore, iou, milliseconds }
}

/**
 * A prompt of the page in the tracker's form.
 *
 * @param {PagePrompt} prompt
 * @returns {import('../shared/tracker.js').Prompt}
 */
export function promptOf({ points, box }) {
  const [x0, y0, x1, y1] = box ?? [0, 0, 0, 0]
  return {
    points: points.map(({ x, y }) => [x, y]),
    labels: points.map(({ foreground }) => (foreground ? 1 : 0)),
    box: box && [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)],
  }
}
