// Converts samples of any range to 8-bit pixels. No DOM.

/** @typedef {{ low: number, high: number }} Range the values of black and of white */

/** The part of all samples that may be darker than black, and the part lighter than white. */
const OUTSIDE = 0.001
/** The part ignored when measuring how far samples span; even a few small objects exceed it. */
const RARE = 0.0001
/** The largest number of samples examined for a range. */
const LOOKED_AT = 2 ** 22
/** The largest number of samples examined in one frame. */
const OF_ONE = 2 ** 16
/** @type {Range} */
const BYTES = { low: 0, high: 255 }
/** 8-bit samples that span at least this much, as in photographs, are shown unchanged. */
const SPAN = 128

/** Finds the range of all frames of a stack, from samples spread over each frame. */
export class RangeFinder {
  /** @param {number} frames the number of frames */
  constructor(frames) {
    this.each = Math.max(64, Math.min(OF_ONE, Math.floor(LOOKED_AT / frames)))
    /** The number of samples of each 16-bit value; counting is faster than sorting. */
    this.counts = new Uint32Array(2 ** 16)
    /** Samples of other kinds. @type {number[]} */
    this.kept = []
    this.least = Infinity
    this.most = -Infinity
    /** @type {{ range: Range, widest: Range } | null} */
    this.found = null
  }

  /**
   * Add a frame's samples. The median of three neighbours counts, so that single hot or dead pixels do
   * not.
   *
   * @param {ArrayLike<number>} samples of a frame, row by row; infinite values and NaN are ignored
   */
  add(samples) {
    const { counts, kept } = this
    const isShort = samples instanceof Uint16Array || samples instanceof Uint8Array
    // An odd step, because an even one could hit the same columns of each row.
    const step = Math.floor(samples.length / this.each) | 1
    const last = samples.length - 1
    for (let i = 0; i <= last; i += step) {
      const value = samples[i]
      if (!Number.isFinite(value)) continue
      if (value < this.least) this.least = value
      if (value > this.most) this.most = value
      const [before, after] = [samples[i && i - 1], samples[i < last ? i + 1 : i]]
      const middle = Math.max(Math.min(before, value), Math.min(Math.max(before, value), after))
      if (isShort) counts[middle]++
      else kept.push(Number.isFinite(middle) ? middle : value)
    }
    this.found = null
  }

  /** The 0.1th and the 99.9th percentile; if these are equal, the widest range. @returns {Range} */
  get range() {
    return (this.found ??= this.find()).range
  }

  /** The 0.01th and the 99.99th percentile; if equal, the least and the largest. @returns {Range} */
  get widest() {
    return (this.found ??= this.find()).widest
  }

  find() {
    const { counts, kept } = this
    const all = new Float64Array(counts.reduce((sum, count) => sum + count, kept.length))
    if (!all.length) return { range: { low: 0, high: 1 }, widest: { low: 0, high: 1 } }
    let to = 0
    counts.forEach((count, value) => all.fill(value, to, (to += count)))
    all.set(kept, to)
    if (kept.length) all.sort()
    const last = all.length - 1
    const without = (/** @type {number} */ part, /** @type {Range} */ otherwise) => {
      const [low, high] = [all[Math.round(last * part)], all[Math.round(last * (1 - part))]]
      return high > low ? { low, high } : otherwise
    }
    const widest = without(RARE, { low: this.least, high: this.most })
    return { range: without(OUTSIDE, widest), widest }
  }
}

/** The black and white values of each channel of a sequence: found from samples, or chosen. */
export class Levels {
  /** @param {number} frames the number of frames */
  constructor(frames) {
    this.frames = frames
    /** Whether samples have 8 bits. @type {boolean | null} */
    this.areBytes = null
    /** @type {Map<number, RangeFinder>} */
    this.finders = new Map()
    /** The user's choices, by channel. @type {Map<number, Range>} */
    this.chosen = new Map()
    /** Increases with each choice. */
    this.version = 0
  }

  /**
   * @param {number} channel counted from 0; red, green and blue are one
   * @param {ArrayLike<number>} samples of a frame, row by row
   * @param {boolean} areBytes whether they have 8 bits
   * @throws {Error} if other frames have more or fewer bits
   */
  add(channel, samples, areBytes) {
    this.areBytes ??= areBytes
    if (this.areBytes !== areBytes) {
      throw new Error('Some frames have 8 bits a sample, others more: save all with the same depth.')
    }
    const finder = this.finders.get(channel) ?? new RangeFinder(this.frames)
    this.finders.set(channel, finder)
    finder.add(samples)
  }

  /** @param {number} channel @returns {Range} */
  of(channel) {
    return this.chosen.get(channel) ?? this.automatic(channel)
  }

  /** The range found from the samples. @param {number} channel @returns {Range} */
  automatic(channel) {
    const finder = this.finders.get(channel)
    const { low, high } = finder?.widest ?? BYTES
    const isPlain = this.areBytes && (high === low || high - low >= SPAN)
    return finder && !isPlain ? finder.range : BYTES
  }

  /** The limits of the user's choice; few samples lie outside. @param {number} channel @returns {Range} */
  bounds(channel) {
    const finder = this.finders.get(channel)
    if (this.areBytes || !finder) return BYTES
    const { low, high } = finder.range
    const margin = high - low || 1
    return { low: Math.max(finder.least, low - margin), high: Math.min(finder.most, high + margin) }
  }

  /** @param {number} channel @param {Range | null} range null for the range found from the samples */
  choose(channel, range) {
    if (range) this.chosen.set(channel, range)
    else this.chosen.delete(channel)
    this.version++
  }
}

/** Whether 8-bit pixels are shown unchanged. @param {Range} range */
export const isPlain = ({ low, high }) => low === BYTES.low && high === BYTES.high

/**
 * Pixels from one plane of samples, or from red, green and blue.
 *
 * @param {ArrayLike<number>[]} planes
 * @param {Range | Range[]} ranges one for all planes, or one for each
 * @param {boolean} [inverted] whether the least value is white
 * @returns {Uint8ClampedArray<ArrayBuffer>} RGBA
 */
export function pixelsOf(planes, ranges, inverted = false) {
  const { length } = planes[0]
  const pixels = new Uint8ClampedArray(4 * length)
  const each = [ranges].flat()
  for (let channel = 0; channel < 3; channel++) {
    const { low, high } = each[channel] ?? each[0]
    const extent = high > low ? high - low : Infinity
    const plane = planes[planes.length === 3 ? channel : 0]
    for (let i = 0, to = channel; i < length; i++, to += 4) {
      const value = ((plane[i] - low) * 255) / extent // NaN becomes 0
      pixels[to] = inverted ? 255 - value : value
    }
  }
  for (let to = 3; to < pixels.length; to += 4) pixels[to] = 255
  return pixels
}

/**
 * Change the range of 8-bit pixels; their transparency stays.
 *
 * @param {Uint8ClampedArray} pixels RGBA, changed in place
 * @param {Range} range
 */
export function stretch(pixels, { low, high }) {
  const values = Uint8ClampedArray.from({ length: 256 }, (_, v) => ((v - low) * 255) / (high - low))
  for (let i = 0; i < pixels.length; i += 4) {
    for (let to = i; to < i + 3; to++) pixels[to] = values[pixels[to]]
  }
}

/**
 * Red, green and blue of 8-bit pixels, without fully transparent ones.
 *
 * @param {Uint8ClampedArray} pixels RGBA
 * @returns {Uint8Array[]}
 */
export function seenPlanes(pixels) {
  const planes = [0, 1, 2].map(() => new Uint8Array(pixels.length / 4))
  let count = 0
  for (let i = 0; i < pixels.length; i += 4) {
    if (!pixels[i + 3]) continue
    for (let channel = 0; channel < 3; channel++) planes[channel][count] = pixels[i + channel]
    count++
  }
  return planes.map((plane) => plane.subarray(0, count))
}
