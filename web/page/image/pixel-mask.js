// A mask from a file: pixels instead of a decoder's logits. No DOM.

import { ALL } from '../shared/preprocessing.js'
import { allOf, areaOf, common, middleOf, SURE } from './masks.js'

/** @typedef {import('../shared/preprocessing.js').Placement} Placement */
/** @typedef {import('./masks.js').Part} Part */
/** @typedef {import('./masks.js').Region} Region */
/** @typedef {import('./view.js').Size} Size */
/**
 * The pixels of an object in compact form, which can be cloned.
 *
 * @typedef {object} Pixels
 * @property {Size} image
 * @property {Region} region around them
 * @property {Uint32Array} runs lengths row by row in the region, alternating outside and inside
 */

/** @param {Part} part @param {Size} image @returns {Pixels} */
export function packed({ region, values }, { width, height }) {
  const runs = [0]
  for (let i = 0, within = 0; i < values.length; i++) {
    if (values[i] !== within) {
      within = values[i]
      runs.push(0)
    }
    runs[runs.length - 1]++
  }
  return { image: { width, height }, region, runs: Uint32Array.from(runs) }
}

/** A mask of pixels, with the methods of Mask (masks.js). */
export class PixelMask {
  /** @param {Pixels} pixels */
  constructor({ image, region, runs }) {
    this.image = image
    this.region = region
    const { left, top, right, bottom } = region
    this.values = new Uint8Array((right - left) * (bottom - top))
    for (let i = 0, run = 0; run < runs.length; i += runs[run++]) {
      if (run % 2) this.values.fill(1, i, i + runs[run])
    }
    /** The part of the image that it covers. */
    this.share = areaOf(this.values) / (image.width * image.height)
    const middle = middleOf(this.values, right - left)
    /** A point inside, in parts of the image. */
    this.middle = middle && {
      x: (left + middle.x * (right - left)) / image.width,
      y: (top + middle.y * (bottom - top)) / image.height,
    }
  }

  /** @param {Size} image as drawn @param {Region} [seen] @returns {Region} */
  regionIn(image, seen = allOf(image)) {
    const across = image.width / this.image.width
    const down = image.height / this.image.height
    const { left, top, right, bottom } = this.region
    const region = {
      left: Math.floor(left * across),
      top: Math.floor(top * down),
      right: Math.ceil(right * across),
      bottom: Math.ceil(bottom * down),
    }
    return common(region, seen)
  }

  /** @param {Size} image as drawn @param {Region} [seen] @returns {Part} */
  over(image, seen) {
    const region = this.regionIn(image, seen)
    const { left, top, right, bottom } = this.region
    const width = region.right - region.left
    const values = new Uint8Array(width * (region.bottom - region.top))
    for (let i = 0, x = region.left, y = region.top; i < values.length; i++) {
      const column = Math.floor(((x + 0.5) * this.image.width) / image.width)
      const row = Math.floor(((y + 0.5) * this.image.height) / image.height)
      if (column >= left && column < right && row >= top && row < bottom) {
        values[i] = this.values[(row - top) * (right - left) + column - left]
      }
      if (++x === region.right) [x, y] = [region.left, y + 1]
    }
    return { region, values }
  }

  /** @param {Size} image @param {Region} seen */
  seen(image, seen) {
    return this.over(image, seen)
  }

  /**
   * Logits of plus or minus `SURE` as input for a decoder, for the encoded image or a part of it.
   *
   * @param {Placement} place
   * @param {number} side of the logits
   * @returns {Float32Array | null} side × side; null if no part of the mask is inside
   */
  logitsIn(place, side) {
    const { left, top, width, height } = place.crop ?? ALL
    const across = (width * place.size) / (place.scaledWidth * side)
    const down = (height * place.size) / (place.scaledHeight * side)
    const logits = Float32Array.from({ length: side * side }, (_, i) =>
      this.logitAt(left + ((i % side) + 0.5) * across, top + (Math.floor(i / side) + 0.5) * down),
    )
    return logits.includes(SURE) ? logits : null
  }

  /** @param {number} x in parts of the image @param {number} y @returns {number} */
  logitAt(x, y) {
    const { left, top, right, bottom } = this.region
    const [column, row] = [Math.floor(x * this.image.width), Math.floor(y * this.image.height)]
    const isInside = column >= left && column < right && row >= top && row < bottom
    return isInside && this.values[(row - top) * (right - left) + column - left] ? SURE : -SURE
  }
}
