// The masks of objects: their regions, their areas, and label images of several masks. No DOM.

import { maskAt } from '../shared/feeds.js'
import { ALL, maskOver } from '../shared/preprocessing.js'
import { PixelMask } from './pixel-mask.js'

/** @typedef {import('./objects.js').Answer} Answer */
/** @typedef {import('./objects.js').Step} Step */
/** @typedef {import('../shared/preprocessing.js').Placement} Placement */
/** @typedef {import('./view.js').At} At */
/** @typedef {import('./view.js').Size} Size */
/** @typedef {{ left: number, top: number, right: number, bottom: number }} Region in pixels */
/** @typedef {{ region: Region, values: Uint8Array }} Part 0 or 1 for each pixel of a region */

/** The largest size of a mask, in pixels each way, for computing its area and middle. */
const COARSE = 384
const COARSELY = { width: COARSE, height: COARSE }
/** How much finer than that a small mask is examined. */
const FINEST = 16
/** A logit that is surely outside. */
const OUTSIDE = -16

/** The logit of a cell that is surely inside; sam2 uses it for a user's masks. */
export const SURE = 10

/** One of the masks of an answer. */
export class Mask {
  /**
   * @param {Answer} answer
   * @param {number} index
   * @param {Mask | PixelMask | null} [around] the object's mask outside the answer's crop
   */
  constructor({ masks, place, threshold }, index, around = null) {
    this.place = place
    this.around = around
    this.threshold = threshold
    this.side = masks.dims[3]
    this.logits = maskAt(masks, index)
    this.box = boxOf(this.logits, this.side, place, threshold)
    const coarse = this.regionIn(COARSELY)
    const longest = Math.max(coarse.right - coarse.left, coarse.bottom - coarse.top, 1)
    const fine = COARSE * Math.min(FINEST, Math.floor(COARSE / longest))
    const { region, values } = this.over({ width: fine, height: fine })
    /** The part of the image that it covers. */
    this.share = areaOf(values) / fine ** 2
    const { left, top, right, bottom } = region
    const middle = middleOf(values, right - left)
    /** A point inside, in parts of the image; null for an empty mask. @type {At | null} */
    this.middle = middle && {
      x: (left + middle.x * (right - left)) / fine,
      y: (top + middle.y * (bottom - top)) / fine,
    }
    /** The part drawn last. @type {{ key: string, part: Part } | null} */
    this.drawn = null
  }

  /**
   * The region that can have pixels inside, in the image as drawn.
   *
   * @param {Size} image as drawn
   * @param {Region} [seen] limits the region
   * @returns {Region}
   */
  regionIn(image, seen = allOf(image)) {
    const own = common(regionOf(this.box, this.side, this.place, image), seen)
    return this.around ? both(own, this.around.regionIn(image, seen)) : own
  }

  /**
   * @param {Size} image as drawn
   * @param {Region} [seen] limits the part
   * @returns {Part}
   */
  over(image, seen) {
    const { logits, side, place, threshold, box } = this
    const region = common(regionOf(box, side, place, image), seen ?? allOf(image))
    const { width, height } = image
    const own = { region, values: maskOver(logits, side, place, width, height, threshold, region) }
    if (!this.around) return own
    return inserted(this.around.over(image, seen), own, pixelsOf(place.crop ?? ALL, image))
  }

  /**
   * The mask's logits as input for a decoder, for another encoded part of the image.
   *
   * @param {Placement} place
   * @returns {Float32Array | null} side × side; null if no part of the mask is inside
   */
  logitsIn(place) {
    if (JSON.stringify(place.crop) === JSON.stringify(this.place.crop)) return this.logits
    const { side, threshold } = this
    const { left, top, width, height } = place.crop ?? ALL
    const across = (width * place.size) / (place.scaledWidth * side)
    const down = (height * place.size) / (place.scaledHeight * side)
    const logits = Float32Array.from({ length: side * side }, (_, i) =>
      this.logitAt(left + ((i % side) + 0.5) * across, top + (Math.floor(i / side) + 0.5) * down),
    )
    return logits.some((logit) => logit > threshold) ? logits : null
  }

  /**
   * @param {number} x in parts of the image
   * @param {number} y
   * @returns {number} interpolated between the middles of the cells around
   */
  logitAt(x, y) {
    const { logits, side, place } = this
    const { left, top, width, height } = place.crop ?? ALL
    const [right, below] = [(x - left) / width, (y - top) / height]
    if (right < 0 || below < 0 || right > 1 || below > 1) {
      return this.around?.logitAt(x, y) ?? OUTSIDE
    }
    const cell = (/** @type {number} */ at) => Math.min(Math.max(at, 0), side - 1)
    const u = cell(((right * place.scaledWidth) / place.size) * side - 0.5)
    const v = cell(((below * place.scaledHeight) / place.size) * side - 0.5)
    const [column, row] = [Math.floor(u), Math.floor(v)]
    const [next, lower] = [cell(column + 1), cell(row + 1) * side]
    const along = (/** @type {number} */ start) =>
      logits[start + column] + (u - column) * (logits[start + next] - logits[start + column])
    const upper = along(row * side)
    return upper + (v - row) * (along(lower) - upper)
  }

  /** `over`, computed once for a visible region. @param {Size} image @param {Region} seen */
  seen(image, seen) {
    const key = JSON.stringify([image, seen])
    if (this.drawn?.key !== key) this.drawn = { key, part: this.over(image, seen) }
    return this.drawn.part
  }
}

/** @type {WeakMap<Answer, Map<number, Mask>>} */
const masks = new WeakMap()
/** @type {WeakMap<import('./pixel-mask.js').Pixels, PixelMask>} */
const opened = new WeakMap()

/**
 * The index of the shown mask of an answer: the user's choice, or else the best.
 *
 * @param {Step} step
 * @param {Answer} answer
 */
export const shownOf = ({ choice }, { best }) => choice ?? best

/**
 * The mask of a step, once it is answered.
 *
 * @param {Step | null} step
 * @returns {Mask | PixelMask | null}
 */
export function maskOf(step) {
  if (step?.pixels) {
    const mask = opened.get(step.pixels) ?? new PixelMask(step.pixels)
    opened.set(step.pixels, mask)
    return mask
  }
  if (!step?.answer) return null
  const { answer } = step
  const made = masks.get(answer) ?? new Map()
  masks.set(answer, made)
  const index = shownOf(step, answer)
  const mask = made.get(index) ?? new Mask(answer, index, maskOf(step.around ?? null))
  made.set(index, mask)
  return mask
}

/**
 * Whether a mask covers a point.
 *
 * @param {Mask | PixelMask} mask
 * @param {At} at in parts of the image
 * @param {Size} image
 */
export function covers(mask, at, image) {
  const left = Math.min(Math.floor(at.x * image.width), image.width - 1)
  const top = Math.min(Math.floor(at.y * image.height), image.height - 1)
  return mask.over(image, { left, top, right: left + 1, bottom: top + 1 }).values[0] === 1
}

/**
 * A mask of any kind as logits of plus or minus `SURE`.
 *
 * @param {Mask | PixelMask} mask
 * @param {Placement} place
 * @param {number} side of the logits
 * @returns {Float32Array} `side` × `side`
 */
export function logitsOn(mask, { scaledWidth, scaledHeight, size }, side) {
  const width = Math.round((scaledWidth / size) * side)
  const height = Math.round((scaledHeight / size) * side)
  const { region, values } = mask.over({ width, height })
  const logits = new Float32Array(side * side).fill(-SURE)
  for (let i = 0, y = region.top; y < region.bottom; y++) {
    for (let x = region.left; x < region.right; x++) if (values[i++]) logits[y * side + x] = SURE
  }
  return logits
}

/**
 * The box around the cells inside a mask: left, top, right and bottom; the last two are exclusive.
 *
 * @param {Float32Array} logits `side` × `side`
 * @param {number} side
 * @param {Placement} place
 * @param {number} threshold
 */
function boxOf(logits, side, { scaledWidth, scaledHeight, size }, threshold) {
  const columns = Math.ceil((scaledWidth / size) * side)
  const rows = Math.ceil((scaledHeight / size) * side)
  let [left, top, right, bottom] = [columns, rows, 0, 0]
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++) {
      if (!(logits[y * side + x] > threshold)) continue
      if (x < left) left = x
      if (x >= right) right = x + 1
      if (y < top) top = y
      bottom = y + 1
    }
  }
  return /** @type {[number, number, number, number]} */ ([left, top, right, bottom])
}

/**
 * The region that a mask can cover in the image as drawn: its edge can lie between a cell inside and
 * the next cell.
 *
 * @param {[number, number, number, number]} box around its cells
 * @param {number} side of the mask
 * @param {Placement} place
 * @param {Size} image as drawn
 * @returns {Region}
 */
export function regionOf([left, top, right, bottom], side, place, image) {
  const crop = place.crop ?? ALL
  const [x, y] = [crop.left * image.width, crop.top * image.height]
  const across = (crop.width * image.width * place.size) / (place.scaledWidth * side)
  const down = (crop.height * image.height * place.size) / (place.scaledHeight * side)
  const region = {
    left: Math.floor(x + (left - 1) * across),
    top: Math.floor(y + (top - 1) * down),
    right: Math.ceil(x + (right + 1) * across),
    bottom: Math.ceil(y + (bottom + 1) * down),
  }
  return common(region, pixelsOf(crop, image))
}

/**
 * The pixels whose middle lies in a part of the image.
 *
 * @param {import('../shared/preprocessing.js').Part} part
 * @param {Size} image as drawn
 * @returns {Region}
 */
function pixelsOf({ left, top, width, height }, image) {
  const first = (/** @type {number} */ at) => Math.max(0, Math.ceil(at - 0.5))
  return {
    left: first(left * image.width),
    top: first(top * image.height),
    right: first((left + width) * image.width),
    bottom: first((top + height) * image.height),
  }
}

/**
 * A mask in which another replaces the region where that one was drawn.
 *
 * @param {Part} mask
 * @param {Part} other
 * @param {Region} where the other was drawn
 * @returns {Part}
 */
function inserted(mask, other, where) {
  const region = both(mask.region, other.region)
  const width = region.right - region.left
  const values = new Uint8Array(width * (region.bottom - region.top))
  for (let y = region.top, i = 0; y < region.bottom; y++) {
    for (let x = region.left; x < region.right; x++, i++) {
      const { region: at, values: from } = holds(where, x, y) ? other : mask
      if (holds(at, x, y)) values[i] = from[(y - at.top) * (at.right - at.left) + x - at.left]
    }
  }
  return { region, values }
}

/** @param {Region} region @param {number} x @param {number} y */
const holds = ({ left, top, right, bottom }, x, y) => x >= left && x < right && y >= top && y < bottom

/** @param {Size} size @returns {Region} */
export const allOf = ({ width, height }) => ({ left: 0, top: 0, right: width, bottom: height })

/**
 * The intersection of two regions; without pixels if they do not overlap.
 *
 * @param {Region} one
 * @param {Region} other
 * @returns {Region}
 */
export function common(one, other) {
  const [left, top] = [Math.max(one.left, other.left), Math.max(one.top, other.top)]
  const right = Math.max(left, Math.min(one.right, other.right))
  const bottom = Math.max(top, Math.min(one.bottom, other.bottom))
  return { left, top, right, bottom }
}

/** Around two regions, either of which can be empty. @param {Region} one @param {Region} other */
function both(one, other) {
  const isEmpty = ({ left, top, right, bottom } = one) => left >= right || top >= bottom
  if (isEmpty(one)) return other
  if (isEmpty(other)) return one
  return {
    left: Math.min(one.left, other.left),
    top: Math.min(one.top, other.top),
    right: Math.max(one.right, other.right),
    bottom: Math.max(one.bottom, other.bottom),
  }
}

/**
 * The region around some regions with a margin, limited to another region.
 *
 * @param {Region[]} regions
 * @param {number} margin in pixels
 * @param {Region} within
 * @returns {Region}
 */
export function around(regions, margin, within) {
  const outer = {
    left: Math.min(...regions.map(({ left }) => left)) - margin,
    top: Math.min(...regions.map(({ top }) => top)) - margin,
    right: Math.max(...regions.map(({ right }) => right)) + margin,
    bottom: Math.max(...regions.map(({ bottom }) => bottom)) + margin,
  }
  return common(outer, within)
}

/** @param {Uint8Array} mask @returns {number} the number of pixels inside */
export function areaOf(mask) {
  let area = 0
  for (let i = 0; i < mask.length; i++) area += mask[i]
  return area
}

/**
 * The point inside a mask that is nearest to its middle.
 *
 * @param {Uint8Array} mask
 * @param {number} width
 * @returns {{ x: number, y: number } | null} in parts of the mask; null for an empty mask
 */
export function middleOf(mask, width) {
  const height = mask.length / width
  let area = 0
  let sumX = 0
  let sumY = 0
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      if (!mask[i]) continue
      area++
      sumX += x
      sumY += y
    }
  }
  if (!area) return null
  const [middleX, middleY] = [sumX / area, sumY / area]
  const nearest = { x: 0, y: 0 }
  let least = Infinity
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      if (!mask[i]) continue
      const distance = (x - middleX) ** 2 + (y - middleY) ** 2
      if (distance >= least) continue
      least = distance
      nearest.x = x
      nearest.y = y
    }
  }
  return { x: (nearest.x + 0.5) / width, y: (nearest.y + 0.5) / height }
}

/**
 * For each pixel of a region the number of its object, or 0. Where objects overlap, the smaller one
 * is on top.
 *
 * @param {{ number: number, area: number, part: () => Part }[]} objects whose parts lie inside the
 *   region; the parts are made one after the other
 * @param {Region} region
 * @returns {Uint16Array}
 */
export function labelled(objects, region) {
  const width = region.right - region.left
  const labels = new Uint16Array(width * (region.bottom - region.top))
  for (const { number, part } of [...objects].sort((one, other) => other.area - one.area)) {
    const { region: at, values } = part()
    for (let y = at.top, from = 0; y < at.bottom; y++) {
      const start = (y - region.top) * width - region.left
      for (let x = at.left; x < at.right; x++, from++) if (values[from]) labels[start + x] = number
    }
  }
  return labels
}
