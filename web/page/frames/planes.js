// Which slice and channels of stacks are shown, each channel with a range of its own. No DOM in it.

import { pixelsOf, RangeFinder } from './gray.js'

/** @typedef {import('./tiff.js').Stack} Stack */

/** @type {import('./gray.js').Range} */
const BYTES = { low: 0, high: 255 }
/** No channel, for a colour. */
export const NONE = -1

export class Planes {
  /** @type {Stack | null} */
  first = null
  /** @type {RangeFinder[]} of each channel, over all frames, slices and files */
  ranges = []
  /** The slice that is shown. */
  slice = 0
  /** The channel that is shown, or those in red, green and blue. */
  colors = [0]
  /** Grows with each choice. */
  version = 0

  /** @param {number} files how many there are */
  constructor(files) {
    this.files = files
  }

  get channels() {
    return this.first?.channels ?? []
  }

  get slices() {
    return this.first?.slices ?? 1
  }

  /** Whether channels can be shown as colours. */
  get canMix() {
    return this.channels.length > 1 && !this.first?.isColored
  }

  /**
   * Take a file's planes in: all are looked at, so that what is broken is not met amid tracking.
   *
   * @param {Stack} stack
   * @param {(done: number, total: number) => void} onProgress frames
   */
  async add(stack, onProgress) {
    const { file, frames, slices, channels } = stack
    this.first ??= stack
    const expected = this.first
    if (channels.length !== expected.channels.length || slices !== expected.slices) {
      throw new Error(
        `Files must have the same channels and slices: ${file} has ${channels.length} and ` +
          `${slices}, ${expected.file} ${expected.channels.length} and ${expected.slices}.`,
      )
    }
    const all = channels.map((_, channel) => channel)
    const planes = this.files * frames * slices
    if (!this.ranges.length) this.ranges = all.map(() => new RangeFinder(planes))
    for (let frame = 0; frame < frames; frame++) {
      onProgress(frame, frames)
      for (let slice = 0; slice < slices; slice++) {
        for (const [channel, samples] of (await stack.read(frame, slice, all)).entries()) {
          if (samples.scaled) samples.planes.forEach((plane) => this.ranges[channel].add(plane))
        }
      }
    }
  }

  /** @param {{ slice?: number, colors?: number[] }} choice */
  choose(choice) {
    Object.assign(this, choice)
    this.version++
  }

  /**
   * A frame as it is chosen to be seen.
   *
   * @param {Stack} stack
   * @param {number} frame
   * @returns {Promise<Uint8ClampedArray<ArrayBuffer>>} RGBA
   */
  async pixels(stack, frame) {
    const { colors, slice } = this
    const wanted = [...new Set(colors.filter((channel) => channel !== NONE))]
    const read = await stack.read(frame, slice, wanted.length ? wanted : [0])
    const shown = colors.map((channel) => read[wanted.indexOf(channel)])
    const [{ planes, inverted }] = read
    const rangeOf = (/** @type {number} */ channel) => this.ranges[channel].range
    const ranges = colors.map((channel, i) => (shown[i]?.scaled ? rangeOf(channel) : BYTES))
    if (colors.length === 1) return pixelsOf(planes, ranges, inverted)
    const black = new Uint8Array(planes[0].length)
    return pixelsOf(shown.map((samples) => samples?.planes[0] ?? black), ranges, inverted)
  }
}

/**
 * The channels that are red, green and blue at first: two are magenta and green, which most people can
 * tell apart.
 *
 * @param {number} channels how many there are
 */
export const firstColors = (channels) => (channels === 2 ? [0, 1, 0] : [0, 1, 2])
