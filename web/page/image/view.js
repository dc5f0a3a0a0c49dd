// Zoom and pan: where an image lies in the frame that shows it. No DOM.

/** @typedef {{ width: number, height: number }} Size */
/** @typedef {{ x: number, y: number }} At */
/**
 * @typedef {object} View
 * @property {number} scale pixels of the frame for one of the image
 * @property {number} x of the image's left edge in the frame
 * @property {number} y of its upper edge
 */
/** @typedef {{ left: number, top: number, width: number, height: number }} Rectangle */

/** The largest zoom: this many times the fitted size, and at least this many pixels for one. */
const MOST = 8

/** @param {Size} image @param {Size} frame */
const fit = (image, frame) => Math.min(frame.width / image.width, frame.height / image.height)

/**
 * The whole image, in the middle of the frame.
 *
 * @param {Size} image
 * @param {Size} frame
 * @returns {View}
 */
export function fitted(image, frame) {
  return bounded({ scale: fit(image, frame), x: 0, y: 0 }, image, frame)
}

/** @param {View} view @param {Size} image @param {Size} frame */
export const isFitted = (view, image, frame) => view.scale <= fit(image, frame) * 1.001

/**
 * The view zoomed by a factor; the point of the image at `at` stays there.
 *
 * @param {View} view
 * @param {number} factor
 * @param {At} at in the frame
 * @param {Size} image
 * @param {Size} frame
 * @returns {View}
 */
export function zoomed(view, factor, at, image, frame) {
  const least = fit(image, frame)
  const scale = clamp(view.scale * factor, least, Math.max(MOST * least, MOST))
  const grown = scale / view.scale
  const x = at.x - (at.x - view.x) * grown
  const y = at.y - (at.y - view.y) * grown
  return bounded({ scale, x, y }, image, frame)
}

/**
 * @param {View} view
 * @param {number} right in pixels of the frame
 * @param {number} down
 * @param {Size} image
 * @param {Size} frame
 * @returns {View}
 */
export function moved({ scale, x, y }, right, down, image, frame) {
  return bounded({ scale, x: x + right, y: y + down }, image, frame)
}

/**
 * The view in a frame of another size.
 *
 * @param {View} view
 * @param {Size} image
 * @param {Size} before
 * @param {Size} frame
 * @returns {View}
 */
export function reframed(view, image, before, frame) {
  if (isFitted(view, image, before)) return fitted(image, frame)
  const right = (frame.width - before.width) / 2
  const down = (frame.height - before.height) / 2
  return zoomed(moved(view, right, down, image, frame), 1, { x: 0, y: 0 }, image, frame)
}

/**
 * The view moved as little as needed to bring a point well inside the frame.
 *
 * @param {View} view
 * @param {At} at in parts of the image
 * @param {Size} image
 * @param {Size} frame
 * @returns {View}
 */
export function showing(view, at, image, frame) {
  const { x, y } = toFrame(view, at, image)
  const margin = Math.min(frame.width, frame.height) / 10
  const right = clamp(x, margin, frame.width - margin) - x
  const down = clamp(y, margin, frame.height - margin) - y
  return moved(view, right, down, image, frame)
}

/**
 * @param {View} view
 * @param {At} at in the frame
 * @param {Size} image
 * @returns {At} in parts of the image; below 0 or above 1 outside
 */
export function toImage({ scale, x, y }, at, { width, height }) {
  return { x: (at.x - x) / (width * scale), y: (at.y - y) / (height * scale) }
}

/**
 * @param {View} view
 * @param {At} at in parts of the image
 * @param {Size} image
 * @returns {At} in the frame
 */
export function toFrame({ scale, x, y }, at, { width, height }) {
  return { x: x + at.x * width * scale, y: y + at.y * height * scale }
}

/**
 * The part of the frame in which the image is visible.
 *
 * @param {View} view
 * @param {Size} image
 * @param {Size} frame
 * @returns {Rectangle}
 */
export function visible({ scale, x, y }, image, frame) {
  const [left, top] = [Math.max(x, 0), Math.max(y, 0)]
  const width = Math.min(x + image.width * scale, frame.width) - left
  const height = Math.min(y + image.height * scale, frame.height) - top
  return { left, top, width, height }
}

/**
 * The view centred where the image is smaller than the frame, and without gaps where it is larger.
 *
 * @param {View} view
 * @param {Size} image
 * @param {Size} frame
 * @returns {View}
 */
function bounded({ scale, x, y }, image, frame) {
  const along = (/** @type {number} */ at, /** @type {number} */ size, /** @type {number} */ room) =>
    size <= room ? (room - size) / 2 : clamp(at, room - size, 0)
  return {
    scale,
    x: along(x, image.width * scale, frame.width),
    y: along(y, image.height * scale, frame.height),
  }
}

/** @param {number} value @param {number} least @param {number} most */
export const clamp = (value, least, most) => Math.min(Math.max(value, least), most)
