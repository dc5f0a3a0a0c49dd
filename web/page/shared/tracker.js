// Follows objects through frames with a model's graphs, as sam2's `SAM2VideoPredictor` does.
//
// The reference for other consumers of the files. No DOM and no onnxruntime in it: whoever makes a
// tracker runs the graphs. memory-bank.js decides what of the frames before is looked at.

import { concatenated } from './arrays.js'
import { History, select, wantsSeveral } from './memory-bank.js'
import { Recent } from './recent.js'

/** @typedef {import('./feeds.js').Feed} Feed */
/** @typedef {import('./feeds.js').Values} Values */
/** @typedef {{ count: number, width: number, height: number }} Frames */
/** @typedef {{ data: ArrayLike<number>, width: number, height: number }} MaskPrompt not 0 inside */
/**
 * What a person says of an object on a frame, in pixels of the frame.
 *
 * @typedef {object} Prompt
 * @property {[number, number][]} [points] x and y
 * @property {number[]} [labels] of each point: 1 for the object, 0 for what it is not
 * @property {[number, number, number, number] | null} [box] left, top, right, bottom
 * @property {MaskPrompt | null} [mask] alone
 */
/**
 * @typedef {'encoder' | 'memory_attention' | 'memory_encoder' | 'tracking_decoder' | 'mask_prompt'}
 *   Graph
 */
/**
 * Runs a graph. Inputs that it does not have are to be left out of what is fed.
 *
 * @typedef {(graph: Graph, feeds: Record<string, Feed>) => Promise<Record<string, Values>>} Run
 */
/**
 * The image embedding, and feature maps of high resolution where the model has these.
 *
 * @typedef {{ image_embed: Values } & Record<string, Values>} Features
 */
/**
 * Where masks and memories are kept that are not at hand: a Map has these methods.
 *
 * @typedef {object} Store
 * @property {(key: string) => Promise<any> | any} get
 * @property {(key: string, value: Heavy) => Promise<any> | any} set
 * @property {(key: string) => Promise<any> | any} delete
 */
/**
 * @typedef {object} Heavy what takes space of a result
 * @property {Float32Array} lowResMasks logits, side × side
 * @property {Float32Array | null} memory once it was encoded
 */
/** @typedef {{ objectScore: number, iou: number, pointer: Float32Array }} Found what does not */
/** @typedef {Found & { lowResMasks: Float32Array }} Result the object is there at scores above 0 */

/** Logits of a mask that is refined are clamped to it. */
const LARGEST_REFINED = 32
/** Of how many frames the features are kept; 16 MiB each at 1024 pixels. */
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
    /** Of memories, without the first. @type {number[]} */
    this.memoryDims = []
  }

  /**
   * Say what an object is on a frame; on one that was tracked already, correct it.
   *
   * @param {number} frame
   * @param {number} object any number that is not taken begins a new object
   * @param {Prompt} prompt all of what is said of the object on this frame
   * @returns {Promise<{ lowResMasks: Float32Array, score: number, iou: number,
   *   pointer: Float32Array }>}
   * @throws {RangeError} when the prompt says nothing, or of no place that there is
   */
  async prompt(frame, object, prompt) {
    const { count } = this.frames
    if (!Number.isInteger(frame) || frame < 0 || frame >= count) {
      throw new RangeError(`There is no frame ${frame}: there are ${count}, from 0 on.`)
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
   * @param {number} [args.from] the first frame that was prompted, unless given
   * @param {boolean} [args.reverse]
   * @param {AbortSignal} [args.signal] ends it before the next frame
   * @param {(object: number, frame: number) => boolean} [args.follows] whether an object is followed
   *   on a frame; every one is, unless given
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
    if (reverse && start === 0) return // as sam2: a stack has nothing before its first frame
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

  /** Take back what was said of an object on a frame. @param {number} frame @param {number} object */
  clearPrompts(frame, object) {
    const known = this.objects.get(object)
    known?.history.cleared(frame)
    known?.waiting.delete(frame)
  }

  /**
   * The newest of an object on a frame.
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
    // What a frame looks at: the newest memories, and each of a prompted frame.
    const limit = () => this.constants.memories + history.conditioning.size + 1
    /** @type {Map<number, Heavy>} */
    const waiting = new Map()
    return { history, shelf: new Shelf(this.store, object, limit), waiting }
  }

  /**
   * An object on a frame that tracking has come to.
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
    history.tracked.set(frame, reverse) // not before: a run may fail
    return result
  }

  /** Let what was prompted since count: tracking starts. */
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
    const known = this.recent.get(frame)
    if (known) return known
    const found = this.encode(frame)
    this.recent.set(frame, found)
    found.catch(() => this.recent.delete(frame))
    return found
  }

  /**
   * The image embedding as memories and pointers change it.
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
    // Of a single frame nothing is before or behind, and each age is 0.
    const reach = Math.max(Math.min(count, this.constants.max_pointers) - 1, 1)
    const { image_embed } = await this.features(frame)
    const found = await this.run('memory_attention', {
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
    return found.conditioned_embed
  }

  /**
   * An object on a frame, of prompts or of memories alone.
   *
   * @param {number} frame
   * @param {Values} embedding
   * @param {{ coords?: number[], labels?: number[], mask?: Float32Array | null,
   *   several?: boolean }} asked
   * @returns {Promise<Result>}
   */
  async decode(
    frame, embedding, { coords = [0, 0], labels = [-1], mask = null, several = false },
  ) {
    const { image_embed, ...details } = await this.features(frame)
    const side = 4 * image_embed.dims[2]
    const found = await this.run('tracking_decoder', {
      ...Object.fromEntries(Object.entries(details).map(([role, map]) => [role, fed(map)])),
      image_embed: fed(embedding),
      point_coords: floats(Float32Array.from(coords), [1, labels.length, 2]),
      point_labels: floats(Float32Array.from(labels), [1, labels.length]),
      mask_input: floats(mask ?? new Float32Array(side * side), [1, 1, side, side]),
      has_mask_input: floats(Float32Array.of(mask ? 1 : 0), [1]),
      multimask: floats(Float32Array.of(several ? 1 : 0), [1]),
    })
    return {
      lowResMasks: found.low_res_masks.data.slice(),
      objectScore: found.object_score_logits.data[0],
      iou: found.iou_predictions.data[0],
      pointer: found.object_pointer.data.slice(),
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
   * An object that a mask says all of; the decoder is asked for its pointer alone.
   *
   * @param {number} frame
   * @param {MaskPrompt} mask
   * @returns {Promise<Result>}
   */
  async fromMask(frame, mask) {
    if (!Array.prototype.some.call(mask.data, Boolean)) {
      throw new RangeError(`The mask on frame ${frame} is empty: nothing is inside.`)
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

/** An object's masks and memories by frame: those used last at hand, the others in the store. */
class Shelf {
  /** @param {Store} store @param {number} object @param {() => number} limit of those at hand */
  constructor(store, object, limit) {
    this.store = store
    this.object = object
    this.limit = limit
    /** @type {Map<number, Heavy>} */
    this.atHand = new Map()
    /** Frames whose newest is in the store. @type {Set<number>} */
    this.stored = new Set()
  }

  /** @param {number} frame */
  key(frame) {
    return `${this.object}/${frame}`
  }

  /** @param {number} frame @returns {Promise<Heavy>} */
  async get(frame) {
    const found = this.atHand.get(frame) ?? (await this.store.get(this.key(frame)))
    if (!found) throw new Error(`Nothing is kept of object ${this.object} on frame ${frame}.`)
    await this.put(frame, found)
    return found
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
 * A mask at another size, linear and antialiased: 1 where half or more of what is around is inside.
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
      // As near to a half as single precision tells.
      resized[y * size + x] = Math.fround(sum) >= 0.5 ? 1 : 0
    }
  }
  return resized
}

/**
 * For each of `count` pixels made of `length`: the first it is made of, and the part of each.
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
