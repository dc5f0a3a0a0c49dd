// The masks that tracking drew on the frames of a sequence. No DOM.

import { Recent } from '../shared/recent.js'

/** @typedef {import('./database.js').Store} Store */
/** @typedef {import('../image/objects.js').Shown} Shown */
/** @typedef {import('../image/objects.js').Step} Step */
/** @typedef {import('../shared/preprocessing.js').Placement} Placement */
/**
 * An object on a frame, as the worker answers.
 *
 * @typedef {object} TrackedMask
 * @property {number} id of the object
 * @property {Float32Array} logits side × side
 * @property {number} score above 0 where the object is there
 * @property {number} iou predicted
 * @property {number} milliseconds
 */

/** @typedef {{ id: number, pixels: import('../image/pixel-mask.js').Pixels }} OpenedMask */
/** @typedef {TrackedMask | OpenedMask} KeptMask */

/** @type {Shown} */
export const NOTHING = new Map()
/** The number of frames that stay in memory: those used last. */
const RECENT = 4

export class MaskStore {
  /** @param {Promise<Store>} store */
  constructor(store) {
    this.store = store
    /** Frames that have a mask. @type {Set<number>} */
    this.frames = new Set()
    /** @type {Recent<KeptMask[]>} */
    this.recent = new Recent(RECENT)
    /** Resolves when the last write ends. @type {Promise<unknown>} */
    this.writing = Promise.resolve()
  }

  /** Forget all masks. */
  clear() {
    this.frames.clear()
    this.recent.clear()
    return this.write((store) => store.clear())
  }

  /**
   * Store the masks of some objects; those of other objects stay.
   *
   * @param {number} frame
   * @param {KeptMask[]} masks
   */
  async add(frame, masks) {
    const ids = new Set(masks.map(({ id }) => id))
    const others = (await this.get(frame)).filter(({ id }) => !ids.has(id))
    const all = [...others, ...masks]
    this.frames.add(frame)
    this.recent.set(frame, all)
    await this.write((store) => store.set(String(frame), all))
  }

  /**
   * The masks shown on a frame.
   *
   * @param {number} frame
   * @param {Placement | null} place of the frames
   * @returns {Promise<Shown>}
   */
  async shown(frame, place) {
    if (!place || !this.frames.has(frame)) return NOTHING
    const masks = await this.get(frame)
    return new Map(masks.map((each) => [each.id, stepOf(frame, each, place)]))
  }

  /** @param {number} frame @returns {Promise<KeptMask[]>} */
  async get(frame) {
    if (!this.frames.has(frame)) return []
    const masks = this.recent.get(frame) ?? (await (await this.store).get(String(frame))) ?? []
    this.recent.set(frame, masks)
    return masks
  }

  /** @param {(store: Store) => Promise<void>} change */
  write(change) {
    const done = this.writing.then(async () => change(await this.store))
    this.writing = done.catch(() => {})
    return done
  }
}

/**
 * A mask as the answer to an empty prompt.
 *
 * @param {number} frame
 * @param {KeptMask} mask
 * @param {Placement} place
 * @returns {Step}
 */
function stepOf(frame, mask, place) {
  const prompt = { points: [], box: null }
  const step = { prompt, refines: null, frame, id: mask.id, answer: null, choice: null, since: 0 }
  if ('pixels' in mask) return { ...step, pixels: mask.pixels }
  return { ...step, answer: answerOf(mask.logits, mask.iou, mask.milliseconds, place) }
}

/**
 * One mask as a decoder's answer.
 *
 * @param {Float32Array} logits
 * @param {number} iou
 * @param {number} milliseconds
 * @param {Placement} place
 * @returns {import('../image/objects.js').Answer}
 */
export function answerOf(logits, iou, milliseconds, place) {
  const side = Math.sqrt(logits.length)
  const masks = { data: logits, dims: [1, 1, side, side] }
  // sam2 cuts the masks of videos at 0.
  return { masks, scores: Float32Array.of(iou), best: 0, threshold: 0, place, milliseconds }
}
