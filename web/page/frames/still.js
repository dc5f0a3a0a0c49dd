// Reads single images with the browser, and 16-bit PNGs, of which a browser would keep only 8 bits.

import { loadImage } from '../shared/image.js'
import { words } from '../shared/words.js'
import { seenPlanes, isPlain, stretch } from './gray.js'

/** @typedef {import('../image/view.js').Size} Size */
/** @typedef {import('./sequence.js').Picture} Picture */

/** The type of drawings, which have no pixels and so no range. */
const DRAWING = 'image/svg+xml'
/** The number of pixels examined for the range; in a larger image, that many in spread rows. */
const LOOKED_AT = 2 ** 18
/** The number of pixels changed at once. */
const STRIP = 2 ** 22

/**
 * An image decoded by the browser: rotated by its EXIF data, with the file's colours unchanged.
 *
 * @param {File} file
 * @param {string} type
 */
export async function openStill(file, type) {
  const blob = new Blob([file], { type: type || file.type })
  const url = URL.createObjectURL(blob)
  const close = () => URL.revokeObjectURL(url)
  try {
    const read = () =>
      type === DRAWING ? loadImage(url) : createImageBitmap(blob, { colorSpaceConversion: 'none' })
    const [element, first] = await Promise.all([loadImage(url), read()])
    const { naturalWidth: width, naturalHeight: height } = element
    return { count: 1, width, height, element, first, read, close }
  } catch {
    close()
    throw new Error(
      `${file.name} is not an image, a TIFF or a video that this page can read, or is too large ` +
        'for this browser. Save it as PNG or TIFF.',
    )
  }
}

/**
 * A 16-bit PNG.
 *
 * @param {File} file
 * @returns {Promise<Size & { planes: Uint16Array[], alpha: Uint16Array | null }>}
 */
export async function deepPng(file) {
  const { decode } = await import('fast-png')
  try {
    const png = decode(new Uint8Array(await file.arrayBuffer()))
    const { width, height, channels, transparency } = png
    const planes = Array.from({ length: channels }, (_, channel) => {
      const plane = new Uint16Array(width * height)
      for (let i = 0, from = channel; i < plane.length; i++, from += channels) {
        plane[i] = png.data[from]
      }
      return plane
    })
    const colours = planes.slice(0, channels < 3 ? 1 : 3)
    /** @type {Uint16Array | null} */
    let alpha = planes[colours.length] ?? null
    if (transparency) {
      alpha = colours[0].map((_, i) =>
        colours.every((plane, channel) => plane[i] === transparency[channel]) ? 0 : 0xffff,
      )
    }
    return { width, height, planes: colours, alpha }
  } catch (error) {
    throw new Error(`${file.name} is broken, or not a PNG that this page can read: ${words(error)}`)
  }
}

/**
 * The samples of a picture for its range: red, green and blue of pixels that are not fully transparent.
 * A drawing has none.
 *
 * @param {Picture} picture
 * @param {Size} size
 * @returns {Uint8Array[]}
 */
export function samplesOfPicture(picture, { width, height }) {
  if (picture instanceof HTMLImageElement) return []
  const rows = Math.max(1, Math.min(height, Math.floor(LOOKED_AT / width)))
  const context = contextOf(width, rows)
  if (rows === height) context.drawImage(picture, 0, 0)
  for (let row = 0; row < rows && rows < height; row++) {
    const from = Math.floor(((row + 0.5) * height) / rows)
    context.drawImage(picture, 0, from, width, 1, 0, row, width, 1)
  }
  return seenPlanes(context.getImageData(0, 0, width, rows).data)
}

/**
 * A picture in another range.
 *
 * @param {Picture} picture
 * @param {Size} size
 * @param {import('./gray.js').Range} range
 * @returns {Promise<Picture>}
 */
export async function ranged(picture, { width, height }, range) {
  if (isPlain(range)) return picture
  const context = contextOf(width, height)
  context.drawImage(picture, 0, 0)
  const rows = Math.max(1, Math.floor(STRIP / width))
  for (let top = 0; top < height; top += rows) {
    const strip = context.getImageData(0, top, width, Math.min(rows, height - top))
    stretch(strip.data, range)
    context.putImageData(strip, 0, top)
  }
  return context.canvas.transferToImageBitmap()
}

/** @param {number} width @param {number} height */
const contextOf = (width, height) =>
  /** @type {OffscreenCanvasRenderingContext2D} */ (
    new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true })
  )
