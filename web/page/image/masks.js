// The masks of objects: where they are, what is counted on them, and several as one picture of
// labels. No DOM in it.

import { maskAt } from '../shared/feeds.js'
import { maskOver } from '../shared/preprocessing.js'
import { PixelMask } from './pixel-mask.js'

/** @typedef {import('./objects.js').Answer} Answer */
/** @typedef {import('./objects.js').Step} Step */
/** @typedef {import('../shared/preprocessing.js').Placement} Placement */
/** @typedef {import('./view.js').At} At */
/** @typedef {import('./view.js').Size} Size */
/** @typedef {{ left: number, top: number, right: number, bottom: number }} Region in pixels */
/** @typedef {{ region: Region, values: Uint8Array }} Part 0 or 1 for each pixel of a region */

/** Side of the masks on which areas and middles are found, in pixels. */
const COARSE = 384
const COARSELY = { width: COARSE, height: COARSE }

/** The logit of a cell of which nothing else is to be said; sam2 takes it for a person's masks. */
const SURE = 10

/** One of the masks of an answer. */
export class Mask {
  /** @param {Answer} answer @param {number} index */
  constructor({ masks, place, threshold }, index) {
    this.place = place
    this.threshold = threshold
    this.side = masks.dims[3]
    this.logits = maskAt(masks, index)
    this.box = boxOf(this.logits, this.side, place, threshold)
    const { region, values } = this.over(COARSELY)
    /** How much of the image it covers. */
    this.share = areaOf(values) / COARSE ** 2
    const { left, top, right, bottom } = region
    const middle = middleOf(values, right - left)
    /** A place inside, in parts of the image; null where it is empty. @type {At | null} */
    this.middle = middle && {
      x: (left + middle.x * (right - left)) / COARSE,
      y: (top + middle.y * (bottom - top)) / COARSE,
    }
    /** What was drawn last. @type {{ key: string, part: Part } | null} */
    this.drawn = null
  }

  /**
   * Where it can be inside, in the image as drawn.
   *
   * @param {Size} image as drawn
   * @param {Region} [seen] of it that is asked for
   * @returns {Region}
   */
  regionIn(image, seen = allOf(image)) {
    return common(regionOf(this.box, this.side, this.place, image), seen)
  }

  /**
   * @param {Size} image as drawn
   * @param {Region} [seen] of it that is asked for
   * @returns {Part}
   */
  over(image, seen) {
    const { logits, side, place, threshold } = this
    const region = this.regionIn(image, seen)
    const { width, height } = image
    return { region, values: maskOver(logits, side, place, width, height, threshold, region) }
  }

  /** The same, computed once for what is seen. @param {Size} image @param {Region} seen */
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
 * Which mask of an answer is shown: the one that a person chose, or else the best.
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
  const known = masks.get(answer) ?? new Map()
  masks.set(answer, known)
  const index = shownOf(step, answer)
  const mask = known.get(index) ?? new Mask(answer, index)
  known.set(index, mask)
  return mask
}

/**
 * Whether a mask is where somebody points to.
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
 * A mask of any kind as logits: sure of each cell.
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
 * Around the cells of a mask that are inside: left, top, and what lies right and below.
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
 * Where a mask can be in the image as drawn: it can end between a cell that is inside and the next.
 *
 * @param {[number, number, number, number]} box around its cells
 * @param {number} side of the mask
 * @param {Placement} place
 * @param {Size} image as drawn
 * @returns {Region}
 */
export function regionOf([left, top, right, bottom], side, place, { width, height }) {
  const across = (width * place.size) / (place.scaledWidth * side)
  const down = (height * place.size) / (place.scaledHeight * side)
  return {
    left: Math.max(0, Math.floor((left - 1) * across)),
    top: Math.max(0, Math.floor((top - 1) * down)),
    right: Math.min(width, Math.ceil((right + 1) * across)),
    bottom: Math.min(height, Math.ceil((bottom + 1) * down)),
  }
}

/** @param {Size} size @returns {Region} */
export const allOf = ({ width, height }) => ({ left: 0, top: 0, right: width, bottom: height })

/**
 * What two regions have in common, of no pixels if nothing.
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

/**
 * What holds all of some regions, a margin around them, and stays within another.
 *
 * @param {Region[]} regions
 * @param {number} margin in pixels
 * @param {Region} within
 * @returns {Region}
 */
export function around(regions, margin, within) {
  const found = {
    left: Math.min(...regions.map(({ left }) => left)) - margin,
    top: Math.min(...regions.map(({ top }) => top)) - margin,
    right: Math.max(...regions.map(({ right }) => right)) + margin,
    bottom: Math.max(...regions.map(({ bottom }) => bottom)) + margin,
  }
  return common(found, within)
}

/** @param {Uint8Array} mask @returns {number} how many of its pixels are inside */
export function areaOf(mask) {
  let area = 0
  for (let i = 0; i < mask.length; i++) area += mask[i]
  return area
}

/**
 * A place inside a mask, as near to its middle as can be.
 *
 * @param {Uint8Array} mask
 * @param {number} width
 * @returns {{ x: number, y: number } | null} in parts of the mask; null where it is empty
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
 * @param {{ number: number, area: number, part: () => Part }[]} objects what is inside the region;
 *   made one after the other
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
