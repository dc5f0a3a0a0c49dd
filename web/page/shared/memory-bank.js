// Decides what a tracker remembers of an object, and which memories it uses for a frame. It runs no
// graph and holds no tensor: tracker.js does. docs/video.md explains the memory bank.

/**
 * The manifest's `video`.
 *
 * @typedef {object} Constants
 * @property {number} image_size side of the encoder's input, in pixels
 * @property {number} memories the number of frames whose memories are used, including one prompted
 * @property {number} memory_stride
 * @property {number} max_pointers
 * @property {number} max_conditioning_frames -1 for all
 * @property {boolean} signed_pointer_times
 * @property {boolean} pointers_from_past_only
 * @property {[number, number] | null} multimask_points the numbers of points for which the best of
 *   three masks is used, least and most
 * @property {boolean} multimask_when_tracking
 * @property {boolean} corrections_condition
 */
/**
 * The frames to use: for each memory with the row of its time, for each pointer with its age in frames.
 *
 * @typedef {{ memories: [number, number][], pointers: [number, number][] }} Selection
 */

/**
 * Selects what sam2's `SAM2Base._prepare_memory_conditioned_features` selects for a frame.
 *
 * @param {number} frame
 * @param {boolean} reverse whether the frame is reached from later ones
 * @param {number} frames the number of frames
 * @param {number[]} conditioning frames that were prompted before they were tracked
 * @param {Iterable<number>} others frames that were tracked
 * @param {Constants} constants
 * @returns {Selection}
 */
export function select(frame, reverse, frames, conditioning, others, constants) {
  const back = reverse ? -1 : 1
  const selected = nearest(frame, conditioning, constants.max_conditioning_frames)
  const rest = new Set([...others, ...conditioning.filter((each) => !selected.includes(each))])
  /** @type {[number, number][]} */
  const memories = selected.map((each) => [each, constants.memories - 1])
  const stride = constants.memory_stride
  for (let age = constants.memories - 1; age > 0; age--) {
    let before = frame - back
    if (age > 1 && reverse) {
      before = Math.ceil((frame + 2) / stride) * stride + (age - 2) * stride
    } else if (age > 1) {
      before = Math.floor((frame - 2) / stride) * stride - (age - 2) * stride
    }
    if (rest.has(before)) memories.push([before, age - 1])
  }
  /** @type {[number, number][]} */
  const pointers = []
  for (const each of selected) {
    const age = (frame - each) * back
    if (age < 0 && constants.pointers_from_past_only) continue
    pointers.push([each, constants.signed_pointer_times ? age : Math.abs(age)])
  }
  for (let age = 1; age < Math.min(frames, constants.max_pointers); age++) {
    if (rest.has(frame - back * age)) pointers.push([frame - back * age, age])
  }
  return { memories, pointers }
}

/**
 * At most `limit` of the conditioning frames, with the nearest before and after among them.
 *
 * @param {number} frame
 * @param {number[]} conditioning
 * @param {number} limit -1 for all
 */
export function nearest(frame, conditioning, limit) {
  if (limit === -1 || conditioning.length <= limit) return [...conditioning]
  const before = conditioning.filter((each) => each < frame)
  const behind = conditioning.filter((each) => each >= frame)
  /** @type {number[]} */
  const chosen = []
  if (before.length) chosen.push(Math.max(...before))
  if (behind.length) chosen.push(Math.min(...behind))
  const rest = conditioning.filter((each) => !chosen.includes(each))
  rest.sort((one, other) => Math.abs(one - frame) - Math.abs(other - frame))
  return [...chosen, ...rest.slice(0, limit - chosen.length)]
}

/**
 * Whether the best-scored of three masks is wanted, instead of the single one.
 *
 * @param {Constants} constants
 * @param {number} points of the prompt; a box counts as two
 * @param {boolean} tracking whether memories are used
 */
export function wantsSeveral({ multimask_points: allowed, multimask_when_tracking }, points, tracking) {
  if (!allowed || (tracking && !multimask_when_tracking)) return false
  return allowed[0] <= points && points <= allowed[1]
}

/**
 * An object's results, by frame. They are small: masks and memories are stored elsewhere, under the
 * same frame.
 *
 * @template Found
 */
export class History {
  constructor() {
    /** Frames prompted before they were tracked. @type {Map<number, Found>} */
    this.conditioning = new Map()
    /** Tracked frames. @type {Map<number, Found>} */
    this.others = new Map()
    /** Frames that tracking passed, and whether in reverse. @type {Map<number, boolean>} */
    this.tracked = new Map()
    /** Frames prompted since tracking. @type {Map<number, { found: Found, conditions: boolean }>} */
    this.pending = new Map()
  }

  /** Whether a prompt on a frame corrects a tracked mask. @param {number} frame */
  corrects(frame) {
    return this.tracked.has(frame) && this.conditioning.size > 0
  }

  /**
   * Note the answer to a prompt; it counts once tracking starts.
   *
   * @param {number} frame
   * @param {Found} found
   * @param {Constants} constants
   */
  prompted(frame, found, { corrections_condition: always }) {
    // sam2 would forget a correction of a frame that already conditions.
    const conditions = !this.corrects(frame) || always || this.conditioning.has(frame)
    this.pending.set(frame, { found, conditions })
  }

  /** Let a prompt count. @param {number} frame */
  settle(frame) {
    const { found, conditions } = /** @type {{ found: Found, conditions: boolean }} */ (
      this.pending.get(frame)
    )
    this.pending.delete(frame)
    if (conditions) this.others.delete(frame)
    const kept = conditions ? this.conditioning : this.others
    kept.set(frame, found)
  }

  /** Remove the prompts of a frame: their result counts as tracked. @param {number} frame */
  cleared(frame) {
    this.pending.delete(frame)
    const found = this.conditioning.get(frame)
    if (found === undefined) return
    this.conditioning.delete(frame)
    this.others.set(frame, found)
    this.tracked.delete(frame)
  }

  /** The result that counts for a frame. @param {number} frame @returns {Found | undefined} */
  settled(frame) {
    return this.conditioning.get(frame) ?? this.others.get(frame)
  }

  /** The newest result of a frame. @param {number} frame @returns {Found | undefined} */
  newest(frame) {
    return this.pending.get(frame)?.found ?? this.settled(frame)
  }

  /** The frames with a result. @returns {Set<number>} */
  get frames() {
    return new Set([...this.conditioning.keys(), ...this.others.keys(), ...this.pending.keys()])
  }
}
