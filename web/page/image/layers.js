// The masks of objects on a frame, and the layer to draw. No DOM.

import { MOST } from './export.js'
import { allOf, around, labelled, maskOf } from './masks.js'
import { isGone, lastStep } from './objects.js'

/** @typedef {import('./masks.js').Mask | import('./pixel-mask.js').PixelMask} Mask */
/** @typedef {import('./objects.js').Shown} Shown */
/** @typedef {import('./view.js').Size} Size */
/** @typedef {{ number: number, name: string, mask: Mask }} Masked an object that has a mask */

/** The category of an object without a name. */
export const NAMELESS = 'object'
/** The largest width of outlines, in pixels. */
const EDGE = 4

/**
 * The step that shows where an object is: its last prompt on the frame, or else the tracked mask;
 * null if the user marked the object as absent.
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
 * @throws {RangeError} when a number does not fit
 */
export function labelsOf(shown, size) {
  const most = shown.reduce((sum, { number }) => Math.max(sum, number), 0)
  if (most > MOST) {
    throw new RangeError(
      `A 16-bit image can hold object numbers up to ${MOST}, but there is an object ${most}. ` +
        'Save COCO (JSON) instead.',
    )
  }
  return labelled(parts(shown, (mask) => mask.over(size)), allOf(size))
}

/**
 * Each object's pixels, including those under other objects.
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
 * The layer to draw for a visible region; null if there is nothing to draw.
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
