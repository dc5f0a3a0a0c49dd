// The masks of objects on a frame: which there are, and what is drawn of them. No DOM in it.

import { MOST } from './export.js'
import { allOf, around, labelled, maskOf } from './masks.js'
import { isGone, lastStep } from './objects.js'

/** @typedef {import('./masks.js').Mask | import('./pixel-mask.js').PixelMask} Mask */
/** @typedef {import('./objects.js').Shown} Shown */
/** @typedef {import('./view.js').Size} Size */
/** @typedef {{ number: number, name: string, mask: Mask }} Masked an object that has a mask */

/** The category of an object without a name. */
export const NAMELESS = 'object'
/** How wide outlines are at most, in pixels. */
const EDGE = 4

/**
 * What says where an object is: its last prompt on the frame, or else what tracking found, unless a
 * person said that it is not there.
 *
 * @param {import('./objects.js').Entry} entry
 * @param {Shown} tracked
 */
export function shownStep(entry, tracked) {
  const step = lastStep(entry) ?? tracked.get(entry.id) ?? null
  return step && isGone(entry, step.frame) ? null : step
}

/**
 * The objects that have a mask.
 *
 * @param {import('./objects.js').Objects} objects
 * @param {Shown} tracked
 * @returns {Masked[]}
 */
export function masked({ entries }, tracked) {
  return entries.flatMap((entry) => {
    const mask = maskOf(shownStep(entry, tracked))
    return mask ? [{ number: entry.number, name: entry.name.trim(), mask }] : []
  })
}

/** @param {Masked[]} shown @param {(mask: Mask) => import('./masks.js').Part} make */
const parts = (shown, make) =>
  shown.map(({ number, mask }) => ({ number, area: mask.share, part: () => make(mask) }))

/**
 * @param {Masked[]} shown
 * @param {Size} size of the whole image
 * @returns {Uint16Array} for each pixel the number of its object, or 0
 * @throws {RangeError} where a number does not fit
 */
export function labelsOf(shown, size) {
  const most = shown.reduce((sum, { number }) => Math.max(sum, number), 0)
  if (most > MOST) {
    throw new RangeError(
      `Object ${most} has no value in a picture of 16 bits, which ends at ${MOST}. ` +
        'Save COCO (JSON) instead.',
    )
  }
  return labelled(parts(shown, (mask) => mask.over(size)), allOf(size))
}

/**
 * Each object's pixels, whatever lies over them.
 *
 * @param {Masked[]} shown
 * @param {Size} size
 */
export function* regionsOf(shown, size) {
  for (const { number, name, mask } of shown) {
    yield { number, category: name || NAMELESS, part: mask.over(size) }
  }
}

/**
 * What is drawn of a region that is seen; null where that is nothing.
 *
 * @param {Masked[]} shown
 * @param {Size} whole
 * @param {import('./masks.js').Region} region
 * @param {Map<number, string>} colors
 * @returns {import('./scene.js').Layer | null}
 */
export function layerOf(shown, whole, region, colors) {
  if (!shown.length) return null
  const regions = shown.map(({ mask }) => mask.regionIn(whole, region))
  const { left, top, right, bottom } = around(regions, EDGE, region)
  const [width, height] = [right - left, bottom - top]
  if (!width || !height) return null
  return {
    labels: labelled(parts(shown, (mask) => mask.seen(whole, region)), { left, top, right, bottom }),
    width,
    height,
    part: {
      left: left / whole.width,
      top: top / whole.height,
      width: width / whole.width,
      height: height / whole.height,
    },
    colors,
  }
}
