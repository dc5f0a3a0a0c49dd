// Reads single images: through the browser, and PNGs of 16 bits, of which a browser keeps 8.

import { loadImage } from '../shared/image.js'
import { words } from '../shared/words.js'
import { seenPlanes, isPlain, stretch } from './gray.js'

/** @typedef {import('../image/view.js').Size} Size */
/** @typedef {import('./sequence.js').Picture} Picture */

/** What has no pixels, and so no range. */
const DRAWING = 'image/svg+xml'
/** How many pixels of an image are looked at for their range; of a larger one these rows. */
const LOOKED_AT = 2 ** 18
/** How many pixels are changed at once. */
const STRIP = 2 ** 22

/**
 * An image that the browser decodes: turned as its EXIF data says, colours as they are in the file.
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
      `${file.name} is not an image, a TIFF or a video that can be read here, or is too large ` +
        'for this browser. Save it as PNG or TIFF.',
    )
  }
}

/**
 * A PNG of 16 bits.
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
    throw new Error(`${file.name} is broken, or no PNG that can be read here: ${words(error)}`)
  }
}

/**
 * Samples of a picture, for its range: red, green and blue of pixels that are not quite transparent.
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
