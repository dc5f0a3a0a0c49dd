// Samples of any range as pixels of 8 bits. No DOM in it.

/** @typedef {{ low: number, high: number }} Range what is black, and what is white */

/** What part of all samples may be darker than black, and what part lighter than white. */
const OUTSIDE = 0.001
/** Of how many samples a range is found at most. */
const LOOKED_AT = 2 ** 22
/** And of one frame. */
const OF_ONE = 2 ** 16

/** Finds the range of all frames of a stack, of samples that are spread over each. */
export class RangeFinder {
  /** @param {number} frames how many there are */
  constructor(frames) {
    this.each = Math.max(64, Math.min(OF_ONE, Math.floor(LOOKED_AT / frames)))
    /** @type {number[]} */
    this.kept = []
    /** @type {Range | null} */
    this.found = null
  }

  /** @param {ArrayLike<number>} samples of a frame; what is not finite is left out */
  add(samples) {
    const step = Math.max(1, Math.floor(samples.length / this.each))
    for (let i = 0; i < samples.length; i += step) {
      if (Number.isFinite(samples[i])) this.kept.push(samples[i])
    }
    this.found = null
  }

  /**
   * The 0.1th and the 99.9th percentile; the least and the largest where these are the same.
   *
   * @returns {Range}
   */
  get range() {
    return (this.found ??= this.find())
  }

  find() {
    const all = Float64Array.from(this.kept).sort()
    if (!all.length) return { low: 0, high: 1 }
    const last = all.length - 1
    const low = all[Math.round(last * OUTSIDE)]
    const high = all[Math.round(last * (1 - OUTSIDE))]
    return high > low ? { low, high } : { low: all[0], high: all[last] }
  }
}

/** What is black and white in each channel of a sequence. */
export class Levels {
  /** @param {number} frames how many there are */
  constructor(frames) {
    this.frames = frames
    /** @type {Map<number, RangeFinder>} */
    this.finders = new Map()
  }

  /** @param {number} channel @param {ArrayLike<number>} samples @param {boolean} areBytes */
  add(channel, samples, areBytes) {
    if (areBytes) return
    const finder = this.finders.get(channel) ?? new RangeFinder(this.frames)
    this.finders.set(channel, finder)
    finder.add(samples)
  }

  /** @param {number} channel @returns {Range} */
  of(channel) {
    return this.finders.get(channel)?.range ?? { low: 0, high: 255 }
  }
}

/**
 * Pixels of one plane of samples, or of red, green and blue.
 *
 * @param {ArrayLike<number>[]} planes
 * @param {Range | Range[]} ranges one of all planes, or one of each
 * @param {boolean} [inverted] the least is white
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
