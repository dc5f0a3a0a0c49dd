// The crop of a large image that is encoded separately after zooming in, where the whole image would
// be too coarse: at its own resolution, up to the size of the encoder's input. No DOM.

import { placement } from '../shared/preprocessing.js'
import { clamp } from './view.js'

/** @typedef {import('../shared/preprocessing.js').Placement} Placement */
/** @typedef {import('../shared/preprocessing.js').Prompt} Prompt */
/** @typedef {import('./objects.js').Step} Step */
/** @typedef {import('./view.js').Rectangle} Rectangle */
/** @typedef {import('./view.js').Size} Size */
/** @typedef {Rectangle} Crop a part of the image in whole pixels */

/** The name of the encoding of the whole image. */
export const WHOLE = 'the whole image'
/** The crop's sides, relative to the visible part: a model also needs an object's surroundings. */
const MARGIN = 1.25
/** How many times as fine as the whole image a crop must be to be worth an encoding. */
const WORTH = 1.5
/** How much a large image is enlarged at most: models draw small objects better then. */
const ENLARGED = 2
/** How much coarser than a new crop an existing crop can be to be used instead. */
const COARSER = 1.6

/** @param {Crop} crop @returns {string} a unique name */
export const nameOf = ({ left, top, width, height }) => `${width} × ${height} at ${left}, ${top}`

/** How many times as fine as the whole image. @param {Crop} crop @param {Size} image */
export const fineness = (crop, image) =>
  Math.max(image.width, image.height) / Math.max(crop.width, crop.height)

/**
 * The crop for the visible part of an image.
 *
 * @param {Rectangle} seen in pixels of the image
 * @param {Size} image
 * @param {number} size of the encoder's input
 * @param {Iterable<Crop>} made earlier crops; one that holds the visible part is used again
 * @returns {Crop | null} null if the whole image is as good
 */
export function cropOf(seen, image, size, made) {
  if (Math.max(image.width, image.height) < WORTH * size) return null // no more detail to show
  const side = Math.max(size / ENLARGED, Math.ceil(MARGIN * Math.max(seen.width, seen.height)))
  const along = (/** @type {number} */ start, /** @type {number} */ length, /** @type {number} */ all) => {
    const taken = Math.min(side, all)
    return [clamp(Math.round(start + (length - taken) / 2), 0, all - taken), taken]
  }
  const [left, width] = along(seen.left, seen.width, image.width)
  const [top, height] = along(seen.top, seen.height, image.height)
  const crop = { left, top, width, height }
  if (fineness(crop, image) < WORTH) return null
  for (const each of made) if (holds(each, seen) && isNearlyAsFine(each, crop)) return each
  return crop
}

/** @param {Crop} one @param {Crop} other */
const isNearlyAsFine = (one, other) =>
  Math.max(one.width, one.height) <= COARSER * Math.max(other.width, other.height)

/** @param {Rectangle} outer @param {Rectangle} inner */
const holds = (outer, inner) =>
  inner.left >= outer.left &&
  inner.top >= outer.top &&
  inner.left + inner.width <= outer.left + outer.width &&
  inner.top + inner.height <= outer.top + outer.height

/**
 * The crop that answers a prompt, and the step whose mask stays around it.
 *
 * @param {Prompt} prompt the object's whole prompt
 * @param {Step | null} before the step before
 * @param {Crop | null} crop for the visible part
 * @returns {Required<Pick<Step, 'crop' | 'around'>>}
 */
export function whereOf(prompt, before, crop) {
  const earlier = before?.crop
  // A fine mask is corrected as finely as it was drawn, even after zooming out.
  const stays = earlier && within(prompt, earlier).isWhole && (!crop || isNearlyAsFine(earlier, crop))
  const used = stays ? earlier : crop
  if (!used || !before) return { crop: used, around: null }
  const isSame = earlier && nameOf(earlier) === nameOf(used)
  return { crop: used, around: isSame ? (before.around ?? null) : before }
}

/**
 * The part of a prompt that lies in a crop, in pixels of the crop.
 *
 * @param {Prompt} prompt in pixels of the image
 * @param {Crop} crop
 * @returns {{ prompt: Prompt, isWhole: boolean }} and whether that is the whole prompt
 */
export function within({ points, box }, crop) {
  const at = (/** @type {number} */ x, /** @type {number} */ y) =>
    holds(crop, { left: x, top: y, width: 0, height: 0 })
  const { left, top } = crop
  const inside = points.filter(({ x, y }) => at(x, y))
  const isBoxInside = box !== null && at(box[0], box[1]) && at(box[2], box[3])
  return {
    prompt: {
      points: inside.map(({ x, y, foreground }) => ({ x: x - left, y: y - top, foreground })),
      box: isBoxInside ? [box[0] - left, box[1] - top, box[2] - left, box[3] - top] : null,
    },
    isWhole: inside.length === points.length && (box === null || isBoxInside),
  }
}

/**
 * A rectangle around the visible part and the new points of a prompt: the keyboard's cross, or the
 * corner of a box, can be outside the visible part.
 *
 * @param {Rectangle} seen
 * @param {Prompt} prompt
 * @param {Prompt | undefined} before
 * @returns {Rectangle}
 */
export function withNews(seen, { points, box }, before) {
  const places = points.slice(before?.points.length ?? 0).map(({ x, y }) => [x, y])
  if (box && box !== before?.box) places.push([box[0], box[1]], [box[2], box[3]])
  const left = Math.min(seen.left, ...places.map(([x]) => x))
  const top = Math.min(seen.top, ...places.map(([, y]) => y))
  const right = Math.max(seen.left + seen.width, ...places.map(([x]) => x))
  const bottom = Math.max(seen.top + seen.height, ...places.map(([, y]) => y))
  return { left, top, width: right - left, height: bottom - top }
}

/**
 * @param {Crop} crop
 * @param {Size} image
 * @param {number} size of the encoder's input
 * @param {import('../shared/preprocessing.js').Resize} resize
 * @returns {Placement}
 */
export function placementOf(crop, image, size, resize) {
  const { left, top, width, height } = crop
  return {
    ...placement(width, height, size, resize),
    crop: {
      left: left / image.width,
      top: top / image.height,
      width: width / image.width,
      height: height / image.height,
    },
  }
}
