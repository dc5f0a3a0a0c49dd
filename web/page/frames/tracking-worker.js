// The worker's side of tracking: a model's graphs in onnxruntime-web, and a tracker that runs them.

import { createSession, encode, fetchFiles } from '../shared/model.js'
import { placement } from '../shared/preprocessing.js'
import { Tracker } from '../shared/tracker.js'
import { graphRunner } from '../shared/tracking-graphs.js'

/** @typedef {import('../shared/model.js').Session} Session */
/** @typedef {import('../shared/preprocessing.js').Prompt} PagePrompt */
/** @typedef {import('../shared/tracker.js').Result} Result */
/** @typedef {import('./mask-store.js').Found} Found */
/**
 * All that was said of an object on a frame: prompts of which each refines what the one before drew.
 *
 * @typedef {{ frame: number, id: number, prompts: PagePrompt[] }} Said
 */
/**
 * @typedef {object} Opened
 * @property {import('../shared/model.js').Runtime} ort
 * @property {Session} encoder
 * @property {any} manifest of a model that tracks
 * @property {import('../shared/model.js').Provider} provider
 */

/**
 * Fetch the graphs that track, or take them from the cache, and create their sessions.
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

/** Follows what was said of objects through a sequence. */
export class Tracking {
  /** @param {Tracker} tracker that was told nothing yet */
  constructor(tracker) {
    this.tracker = tracker
    /** What it was told, by object and frame. @type {Map<string, Said>} */
    this.told = new Map()
  }

  /**
   * Tell the tracker all that was said of an object on a frame, of which it may know some.
   *
   * @param {Said} said
   * @returns {Promise<Found>}
   */
  async prompt(said) {
    const start = performance.now()
    const { frame, id, prompts } = said
    const key = keyOf(said)
    const before = this.told.get(key)?.prompts ?? []
    const goesOn = before.every((each, index) => isSame(each, prompts[index]))
    if (!goesOn) await this.forget({ frame, id })
    const known = goesOn ? before.length : 0
    for (let count = known; count < prompts.length; count++) {
      await this.tracker.prompt(frame, id, promptOf(prompts[count]))
      this.told.set(key, { frame, id, prompts: prompts.slice(0, count + 1) })
    }
    const result = /** @type {Result} */ (await this.tracker.result(frame, id))
    return found(id, result, performance.now() - start)
  }

  /**
   * Take back what was said of an object on a frame. If that was all, nothing of it is remembered: a
   * mask that was wrong is not to be refined.
   *
   * @param {{ frame: number, id: number }} said
   */
  async forget(said) {
    this.told.delete(keyOf(said))
    if ([...this.told.values()].some(({ id }) => id === said.id)) {
      this.tracker.clearPrompts(said.frame, said.id)
    } else {
      await this.tracker.remove(said.id)
    }
  }

  /**
   * Follow objects from a frame on.
   *
   * @param {object} args
   * @param {Said[]} args.said of all objects on all frames; what is not in it was taken back
   * @param {number} args.from
   * @param {boolean} args.reverse
   * @param {() => boolean} stopped
   * @returns {AsyncGenerator<{ frame: number, found: Found[] }>}
   */
  async *track({ said, from, reverse }, stopped) {
    await this.agree(said)
    const signal = /** @type {AbortSignal} */ ({
      get aborted() {
        return stopped()
      },
    })
    const start = this.startOf(from, from + (reverse ? -1 : 1))
    let since = performance.now()
    for await (const { frame, objects } of this.tracker.track({ from: start, reverse, signal })) {
      const each = (performance.now() - since) / objects.length
      const all = objects.map(({ object, ...result }) => found(object, result, each))
      // The frame was drawn anew without its correction: that is made again, and tracked on from.
      for (const correction of this.correctionsOn(frame)) {
        this.told.delete(keyOf(correction))
        const again = await this.prompt(correction)
        all.splice(all.findIndex(({ id }) => id === again.id), 1, again)
      }
      await this.tracker.settlePrompts()
      yield { frame, found: all }
      since = performance.now()
    }
  }

  /** Let the tracker know what was said, and nothing else. @param {Said[]} said */
  async agree(said) {
    const keys = new Set(said.map(keyOf))
    for (const each of [...this.told.values()]) {
      if (!keys.has(keyOf(each))) await this.forget(each)
    }
    for (const each of said) await this.prompt(each)
  }

  /** What was said on a frame after it was tracked. @param {number} frame */
  correctionsOn(frame) {
    return [...this.told.values()].filter((each) => {
      const history = this.tracker.objects.get(each.id)?.history
      return each.frame === frame && history && !history.conditioning.has(frame)
    })
  }

  /**
   * Where tracking starts: after a frame that was corrected, for from that sam2 draws it anew,
   * unless another object has no mask there.
   *
   * @param {number} from
   * @param {number} next
   */
  startOf(from, next) {
    const histories = [...this.tracker.objects.values()].map(({ history }) => history)
    const corrected = histories.some(({ pending }) => pending.get(from)?.conditions === false)
    const complete = histories.every((history) => history.newest(from))
    return corrected && complete && next !== 0 ? next : from
  }
}

/** @param {{ frame: number, id: number }} said */
const keyOf = ({ frame, id }) => `${id}/${frame}`

/** @param {unknown} one @param {unknown} other */
const isSame = (one, other) => JSON.stringify(one) === JSON.stringify(other)

/** @param {number} id @param {Result} result @param {number} milliseconds @returns {Found} */
function found(id, { lowResMasks, objectScore, iou }, milliseconds) {
  return { id, logits: lowResMasks, score: objectScore, iou, milliseconds }
}

/**
 * A prompt of the page as the tracker has them.
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
