// Follows objects through frames with a model's graphs, like sam2's `SAM2VideoPredictor`.
//
// This is the reference for other consumers of the files. No DOM and no onnxruntime: the caller
// provides a function that runs the graphs. memory-bank.js decides which memories are used.

import { concatenated } from './arrays.js'
import { History, select, wantsSeveral } from './memory-bank.js'
import { Recent } from './recent.js'

/** @typedef {import('./feeds.js').Feed} Feed */
/** @typedef {import('./feeds.js').Values} Values */
/** @typedef {{ count: number, width: number, height: number }} Frames */
/** @typedef {{ data: ArrayLike<number>, width: number, height: number }} MaskPrompt not 0 inside */
/**
 * A user's prompt about an object on a frame, in pixels of the frame.
 *
 * @typedef {object} Prompt
 * @property {[number, number][]} [points] x and y
 * @property {number[]} [labels] of each point: 1 for the object, 0 for the background
 * @property {[number, number, number, number] | null} [box] left, top, right, bottom
 * @property {MaskPrompt | null} [mask] without points and box
 */
/**
 * @typedef {'encoder' | 'memory_attention' | 'memory_encoder' | 'tracking_decoder' | 'mask_prompt'}
 *   Graph
 */
/**
 * Runs a graph. It must ignore feeds that are not inputs of the graph.
 *
 * @typedef {(graph: Graph, feeds: Record<string, Feed>) => Promise<Record<string, Values>>} Run
 */
/**
 * The image embedding, and high-resolution feature maps if the model has these.
 *
 * @typedef {{ image_embed: Values } & Record<string, Values>} Features
 */
/**
 * Stores masks and memories that were not used recently. A Map has these methods.
 *
 * @typedef {object} Store
 * @property {(key: string) => Promise<any> | any} get
 * @property {(key: string, value: Heavy) => Promise<any> | any} set
 * @property {(key: string) => Promise<any> | any} delete
 */
/**
 * @typedef {object} Heavy the large part of a result
 * @property {Float32Array} lowResMasks logits, side × side
 * @property {Float32Array | null} memory null until it is encoded
 */
/** @typedef {{ objectScore: number, iou: number, pointer: Float32Array }} Found the small part */
/** @typedef {Found & { lowResMasks: Float32Array }} Result the object is present at scores above 0 */

/** The logits of a mask to refine are clamped to plus or minus this. */
const LARGEST_REFINED = 32
/** The number of frames whose features are kept; 16 MiB each at 1024 pixels. */
const RECENT = 3

export class Tracker {
  /**
   * @param {object} args
   * @param {import('./memory-bank.js').Constants} args.constants `video` of the manifest
   * @param {Run} args.run
   * @param {(frame: number) => Promise<Features>} args.features runs the encoder
   * @param {Frames} args.frames
   * @param {Store} args.store
   */
  constructor({ constants, run, features, frames, store }) {
    this.constants = constants
    this.run = run
    this.encode = features
    this.frames = frames
    this.store = store
    /** @type {Map<number, { history: History<Found>, shelf: Shelf, waiting: Map<number, Heavy> }>} */
    this.objects = new Map()
    /** @type {Recent<Promise<Features>>} */
    this.recent = new Recent(RECENT)
    /** The dimensions of a memory, without the first. @type {number[]} */
    this.memoryDims = []
  }

  /**
   * Prompt an object on a frame; on a tracked frame this corrects it.
   *
   * @param {number} frame
   * @param {number} object an unused number begins a new object
   * @param {Prompt} prompt the whole prompt about the object on this frame
   * @returns {Promise<{ lowResMasks: Float32Array, score: number, iou: number,
   *   pointer: Float32Array }>}
   * @throws {RangeError} when the prompt is empty or outside the frame, or the frame does not exist
   */
  async prompt(frame, object, prompt) {
    const { count } = this.frames
    if (!Number.isInteger(frame) || frame < 0 || frame >= count) {
      throw new RangeError(`There is no frame ${frame}: expected one of the frames 0 to ${count - 1}.`)
    }
    const known = this.objects.get(object) ?? this.unknown(object)
    const { history } = known
    const result = prompt.mask
      ? await this.fromMask(frame, prompt.mask)
      : await this.fromPoints(frame, known, this.points(prompt))
    const { lowResMasks, ...found } = result
    history.prompted(frame, found, this.constants)
    known.waiting.set(frame, { lowResMasks, memory: null })
    this.objects.set(object, known)
    return { lowResMasks, score: found.objectScore, iou: found.iou, pointer: found.pointer }
  }

  /**
   * Follow every object to the last frame, or in reverse to the first.
   *
   * @param {object} [args]
   * @param {number} [args.from] by default the first prompted frame
   * @param {boolean} [args.reverse]
   * @param {AbortSignal} [args.signal] stops before the next frame
   * @param {(object: number, frame: number) => boolean} [args.follows] whether to follow an object on a
   *   frame; by default always
   * @returns {AsyncGenerator<{ frame: number, objects: (Result & { object: number })[] }>}
   * @throws {RangeError} when nothing was prompted
   */
  async *track({ from, reverse = false, signal, follows = () => true } = {}) {
    await this.settlePrompts()
    const followed = [...this.objects].filter(([, { history }]) => history.conditioning.size)
    if (!followed.length) throw new RangeError('Nothing to track: prompt an object on a frame first.')
    const first = followed.flatMap(([, { history }]) => [...history.conditioning.keys()])
    const start = from ?? Math.min(...first)
    const { count } = this.frames
    if (reverse && start === 0) return // like sam2: there is no frame before the first
    for (let frame = start; frame >= 0 && frame < count; frame += reverse ? -1 : 1) {
      if (signal?.aborted) return
      const objects = []
      for (const [object, known] of followed) {
        if (this.objects.get(object) !== known) continue // it was removed meanwhile
        if (!follows(object, frame)) continue
        objects.push({ object, ...(await this.follow(frame, known, reverse)) })
      }
      yield { frame, objects }
    }
  }

  /** Forget an object. @param {number} object */
  async remove(object) {
    const known = this.objects.get(object)
    this.objects.delete(object)
    for (const frame of known?.history.frames ?? []) await known?.shelf.delete(frame)
  }

  /** Remove the prompts of an object on a frame. @param {number} frame @param {number} object */
  clearPrompts(frame, object) {
    const known = this.objects.get(object)
    known?.history.cleared(frame)
    known?.waiting.delete(frame)
  }

  /**
   * The newest result of an object on a frame.
   *
   * @param {number} frame
   * @param {number} object
   * @returns {Promise<Result | null>}
   */
  async result(frame, object) {
    const known = this.objects.get(object)
    const found = known?.history.newest(frame)
    if (!known || !found) return null
    const heavy = known.waiting.get(frame) ?? (await known.shelf.get(frame))
    return { ...found, lowResMasks: heavy.lowResMasks }
  }

  /** @param {number} object */
  unknown(object) {
    /** @type {History<Found>} */
    const history = new History()
    // A frame uses the newest memories, and the memory of each prompted frame.
    const limit = () => this.constants.memories + history.conditioning.size + 1
    /** @type {Map<number, Heavy>} */
    const waiting = new Map()
    return { history, shelf: new Shelf(this.store, object, limit), waiting }
  }

  /**
   * The result of an object on a frame that tracking has reached.
   *
   * @param {number} frame
   * @param {{ history: History<Found>, shelf: Shelf }} known
   * @param {boolean} reverse
   * @returns {Promise<Result>}
   */
  async follow(frame, { history, shelf }, reverse) {
    const prompted = history.conditioning.get(frame)
    if (prompted) {
      const { lowResMasks } = await shelf.get(frame)
      history.tracked.set(frame, reverse)
      return { ...prompted, lowResMasks }
    }
    const embedding = await this.conditioned(frame, history, shelf, reverse)
    const several = wantsSeveral(this.constants, 0, true)
    const result = await this.decode(frame, embedding, { several })
    const { lowResMasks, ...found } = result
    const memory = await this.memory(frame, result, false)
    await shelf.set(frame, { lowResMasks, memory })
    history.others.set(frame, found)
    history.tracked.set(frame, reverse) // not earlier, because a run may fail
    return result
  }

  /** Make new prompts count, because tracking starts. */
  async settlePrompts() {
    for (const { history, shelf, waiting } of this.objects.values()) {
      for (const [frame, { found }] of [...history.pending]) {
        const { lowResMasks } = /** @type {Heavy} */ (waiting.get(frame))
        const memory = await this.memory(frame, { ...found, lowResMasks }, true)
        await shelf.set(frame, { lowResMasks, memory })
        history.settle(frame)
        waiting.delete(frame)
      }
    }
  }

  /**
   * The encoder's outputs for a frame; it runs once for all objects.
   *
   * @param {number} frame
   * @returns {Promise<Features>}
   */
  features(frame) {
    const kept = this.recent.get(frame)
    if (kept) return kept
    const encoded = this.encode(frame)
    this.recent.set(frame, encoded)
    encoded.catch(() => this.recent.delete(frame))
    return encoded
  }

  /**
   * The image embedding, conditioned on memories and pointers.
   *
   * @param {number} frame
   * @param {History<Found>} history
   * @param {Shelf} shelf
   * @param {boolean} reverse
   * @returns {Promise<Values>}
   */
  async conditioned(frame, history, shelf, reverse) {
    const { count } = this.frames
    const { conditioning, others } = history
    const chosen = select(
      frame, reverse, count, [...conditioning.keys()], others.keys(), this.constants,
    )
    const memories = []
    for (const [each] of chosen.memories) {
      memories.push(/** @type {Float32Array} */ ((await shelf.get(each)).memory))
    }
    const pointers = chosen.pointers.map(
      ([each]) => /** @type {Found} */ (history.settled(each)).pointer,
    )
    const [{ pointer }] = conditioning.values()
    // With a single frame there is nothing before or after, and each age is 0.
    const reach = Math.max(Math.min(count, this.constants.max_pointers) - 1, 1)
    const { image_embed } = await this.features(frame)
    const { conditioned_embed } = await this.run('memory_attention', {
      image_embed: fed(image_embed),
      memories: floats(concatenated(memories), [memories.length, ...this.memoryDims]),
      memory_times: {
        dtype: 'int32',
        data: Int32Array.from(chosen.memories, ([, time]) => time),
        dims: [memories.length],
      },
      pointers: floats(concatenated(pointers), [pointers.length, pointer.length]),
      pointer_times: floats(
        Float32Array.from(chosen.pointers, ([, age]) => age / reach),
        [pointers.length],
      ),
    })
    return conditioned_embed
  }

  /**
   * The result of an object on a frame, from prompts or only from memories.
   *
   * @param {number} frame
   * @param {Values} embedding
   * @param {{ coords?: number[], labels?: number[], mask?: Float32Array | null,
   *   several?: boolean }} prompt
   * @returns {Promise<Result>}
   */
  async decode(
    frame, embedding, { coords = [0, 0], labels = [-1], mask = null, several = false },
  ) {
    const { image_embed, ...details } = await this.features(frame)
    const side = 4 * image_embed.dims[2]
    const decoded = await this.run('tracking_decoder', {
      ...Object.fromEntries(Object.entries(details).map(([role, map]) => [role, fed(map)])),
      image_embed: fed(embedding),
      point_coords: floats(Float32Array.from(coords), [1, labels.length, 2]),
      point_labels: floats(Float32Array.from(labels), [1, labels.length]),
      mask_input: floats(mask ?? new Float32Array(side * side), [1, 1, side, side]),
      has_mask_input: floats(Float32Array.of(mask ? 1 : 0), [1]),
      multimask: floats(Float32Array.of(several ? 1 : 0), [1]),
    })
    return {
      lowResMasks: decoded.low_res_masks.data.slice(),
      objectScore: decoded.object_score_logits.data[0],
      iou: decoded.iou_predictions.data[0],
      pointer: decoded.object_pointer.data.slice(),
    }
  }

  /**
   * @param {number} frame
   * @param {{ history: History<Found>, shelf: Shelf, waiting: Map<number, Heavy> }} known
   * @param {{ coords: number[], labels: number[] }} points
   */
  async fromPoints(frame, { history, shelf, waiting }, { coords, labels }) {
    const corrects = history.corrects(frame)
    const embedding = corrects
      ? await this.conditioned(frame, history, shelf, Boolean(history.tracked.get(frame)))
      : (await this.features(frame)).image_embed
    const before = history.newest(frame) && (waiting.get(frame) ?? (await shelf.get(frame)))
    const limited = (/** @type {number} */ logit) =>
      Math.min(Math.max(logit, -LARGEST_REFINED), LARGEST_REFINED)
    const mask = before ? before.lowResMasks.map(limited) : null
    const several = wantsSeveral(this.constants, labels.length, corrects)
    return this.decode(frame, embedding, { coords, labels, mask, several })
  }

  /**
   * The result of an object given by a mask; only its pointer comes from the decoder.
   *
   * @param {number} frame
   * @param {MaskPrompt} mask
   * @returns {Promise<Result>}
   */
  async fromMask(frame, mask) {
    if (!Array.prototype.some.call(mask.data, Boolean)) {
      throw new RangeError(`The mask on frame ${frame} is empty: expected at least one pixel inside.`)
    }
    const { image_size: size } = this.constants
    const { image_embed } = await this.features(frame)
    const given = await this.run('mask_prompt', {
      image_embed: fed(image_embed),
      mask: floats(resizedMask(mask, size), [1, 1, size, size]),
    })
    const result = await this.decode(frame, given.image_embed_without_memory, {
      mask: given.mask_input.data,
    })
    return {
      ...result,
      lowResMasks: given.low_res_masks.data.slice(),
      objectScore: given.object_score_logits.data[0],
    }
  }

  /**
   * The memory of an object on a frame.
   *
   * @param {number} frame
   * @param {Result} result
   * @param {boolean} prompted
   */
  async memory(frame, { lowResMasks, objectScore }, prompted) {
    const { image_embed } = await this.features(frame)
    const side = Math.sqrt(lowResMasks.length)
    const { memory } = await this.run('memory_encoder', {
      image_embed: fed(image_embed),
      low_res_masks: floats(lowResMasks, [1, 1, side, side]),
      object_score_logits: floats(Float32Array.of(objectScore), [1, 1]),
      prompted: floats(Float32Array.of(prompted ? 1 : 0), [1]),
    })
    this.memoryDims = [...memory.dims.slice(1)]
    return memory.data.slice()
  }

  /** A box's corners and points, in pixels of the model's input. @param {Prompt} prompt */
  points({ points = [], labels = [], box = null }) {
    const corners = box ? [[box[0], box[1]], [box[2], box[3]]] : []
    const all = [...corners, ...points]
    if (!all.length || points.length !== labels.length) {
      throw new RangeError('Expected a mask, a box, or points with a label each.')
    }
    const { width, height } = this.frames
    for (const [x, y] of all) {
      if (!(x >= 0 && y >= 0 && x <= width && y <= height)) {
        throw new RangeError(`The prompt at ${x}, ${y} is outside the frame, ${width} × ${height}.`)
      }
    }
    const { image_size: size } = this.constants
    return {
      coords: all.flatMap(([x, y]) => [(x / width) * size, (y / height) * size]),
      labels: [...(box ? [2, 3] : []), ...labels],
    }
  }
}

/** An object's masks and memories by frame: those used last in memory, the others in the store. */
class Shelf {
  /** @param {Store} store @param {number} object @param {() => number} limit of those in memory */
  constructor(store, object, limit) {
    this.store = store
    this.object = object
    this.limit = limit
    /** @type {Map<number, Heavy>} */
    this.atHand = new Map()
    /** Frames whose newest version is in the store. @type {Set<number>} */
    this.stored = new Set()
  }

  /** @param {number} frame */
  key(frame) {
    return `${this.object}/${frame}`
  }

  /** @param {number} frame @returns {Promise<Heavy>} */
  async get(frame) {
    const heavy = this.atHand.get(frame) ?? (await this.store.get(this.key(frame)))
    if (!heavy) throw new Error(`Nothing is stored for object ${this.object} on frame ${frame}.`)
    await this.put(frame, heavy)
    return heavy
  }

  /** @param {number} frame @param {Heavy} heavy */
  async set(frame, heavy) {
    this.stored.delete(frame)
    await this.put(frame, heavy)
  }

  /** @param {number} frame */
  async delete(frame) {
    this.atHand.delete(frame)
    this.stored.delete(frame)
    await this.store.delete(this.key(frame))
  }

  /** @param {number} frame @param {Heavy} heavy */
  async put(frame, heavy) {
    this.atHand.delete(frame) // the newest is last
    this.atHand.set(frame, heavy)
    for (const [oldest, value] of this.atHand) {
      if (this.atHand.size <= this.limit()) break
      if (!this.stored.has(oldest)) await this.store.set(this.key(oldest), value)
      this.stored.add(oldest)
      this.atHand.delete(oldest)
    }
  }
}

/** @param {Float32Array} data @param {number[]} dims @returns {Feed} */
const floats = (data, dims) => ({ dtype: 'float32', data, dims })

/** @param {Values} values @returns {Feed} */
const fed = ({ data, dims }) => floats(data, [...dims])

/**
 * A mask at another size, scaled linearly with antialiasing: 1 where at least half is inside.
 *
 * @param {MaskPrompt} mask
 * @param {number} size
 * @returns {Float32Array} size × size
 */
export function resizedMask({ data, width, height }, size) {
  const across = weights(width, size)
  const down = weights(height, size)
  const rows = new Float32Array(height * size)
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < size; x++) {
      const { first, parts } = across[x]
      let sum = 0
      parts.forEach((part, i) => (sum += data[y * width + first + i] ? part : 0))
      rows[y * size + x] = sum
    }
  }
  const resized = new Float32Array(size * size)
  for (let y = 0; y < size; y++) {
    const { first, parts } = down[y]
    for (let x = 0; x < size; x++) {
      let sum = 0
      parts.forEach((part, i) => (sum += rows[(first + i) * size + x] * part))
      // Compared with a half in single precision.
      resized[y * size + x] = Math.fround(sum) >= 0.5 ? 1 : 0
    }
  }
  return resized
}

/**
 * For each of `count` pixels scaled from `length`: its first source pixel, and the weight of each.
 *
 * @param {number} length
 * @param {number} count
 */
function weights(length, count) {
  const scale = length / count
  const reach = Math.max(scale, 1)
  return Array.from({ length: count }, (_, index) => {
    const center = (index + 0.5) * scale
    const first = Math.max(0, Math.trunc(center - reach + 0.5))
    const end = Math.min(length, Math.trunc(center + reach + 0.5))
    const parts = []
    for (let i = first; i < end; i++) {
      parts.push(Math.max(0, 1 - Math.abs((i - center + 0.5) / reach)))
    }
    const sum = parts.reduce((total, part) => total + part, 0)
    return { first, parts: parts.map((part) => part / sum) }
  })
}
