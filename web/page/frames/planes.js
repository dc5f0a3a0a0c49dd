// The shown slice and channels of stacks. No DOM.

import { pixelsOf } from './gray.js'

/** @typedef {import('./gray.js').Levels} Levels */
/** @typedef {import('./tiff.js').Samples} Samples */
/** @typedef {import('./tiff.js').Stack} Stack */
/** @typedef {{ channel: number, samples: Samples | undefined }[]} Chosen undefined: a colour without a channel */

/** A colour without a channel. */
export const NONE = -1

export class Planes {
  /** The first file; null if none is a TIFF. @type {Stack | null} */
  first = null
  /** The shown slice. */
  slice = 0
  /** The shown channel, or the channels in red, green and blue. */
  colors = [0]
  /** Increases with each choice. */
  version = 0

  /**
   * Add a file's planes. All are read, so that a broken one is not met during tracking.
   *
   * @param {Stack} stack
   * @param {Levels} levels of all files
   * @param {(done: number, total: number) => void} onProgress frames
   */
  async add(stack, levels, onProgress) {
    const { file, frames, slices, channels } = stack
    this.first ??= stack
    const expected = this.first
    if (channels.length !== expected.channels.length || slices !== expected.slices) {
      throw new Error(
        `Files must have the same number of channels and slices: ${file} has ${channels.length} and ` +
          `${slices}, ${expected.file} ${expected.channels.length} and ${expected.slices}.`,
      )
    }
    const all = channels.map((_, channel) => channel)
    for (let frame = 0; frame < frames; frame++) {
      onProgress(frame, frames)
      for (let slice = 0; slice < slices; slice++) {
        for (const [channel, samples] of (await stack.read(frame, slice, all)).entries()) {
          for (const plane of samples.planes) levels.add(channel, plane, !samples.scaled)
        }
      }
    }
  }

  /** @param {{ slice?: number, colors?: number[] }} choice */
  choose(choice) {
    Object.assign(this, choice)
    this.version++
  }

  /** The chosen planes of a frame. @param {Stack} stack @param {number} frame @returns {Promise<Chosen>} */
  async read(stack, frame) {
    const { colors, slice } = this
    const wanted = [...new Set(colors.filter((channel) => channel !== NONE))]
    const read = await stack.read(frame, slice, wanted)
    return colors.map((channel) => ({ channel, samples: read[wanted.indexOf(channel)] }))
  }

  /**
   * @param {Chosen} chosen
   * @param {Levels} levels
   * @returns {Uint8ClampedArray<ArrayBuffer>} RGBA
   */
  paint(chosen, levels) {
    const { width, height } = /** @type {Stack} */ (this.first)
    const [{ samples }] = chosen
    const black = new Uint8Array(width * height).fill(samples?.inverted ? 255 : 0)
    const planes = chosen.map((each) => each.samples?.planes[0] ?? black)
    const ranges = chosen.map(({ channel }) => levels.of(channel))
    const isOne = chosen.length === 1 && samples
    return pixelsOf(isOne ? samples.planes : planes, ranges, samples?.inverted)
  }
}

/**
 * The initial channels for red, green and blue: two channels are magenta and green, which most people
 * can tell apart.
 *
 * @param {number} channels the number of channels
 */
export const firstColors = (channels) => (channels === 2 ? [0, 1, 0] : [0, 1, 2])
