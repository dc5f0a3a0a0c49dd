// The saved files: label images, and COCO's annotations. No DOM.

import { contours } from './contours.js'

/** @typedef {import('./masks.js').Part} Part */

/** The largest value of a 16-bit pixel. */
export const MOST = 0xffff
const SIGNATURE = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a)
const GRAY = 0

/**
 * A PNG with one channel: 8 bits for each pixel, or 16 if a value is above 255.
 *
 * @param {ArrayLike<number>} values row by row, at most `MOST`
 * @param {import('./view.js').Size} size
 * @returns {Promise<Blob>}
 */
export async function grayPng(values, { width, height }) {
  let most = 0
  for (let i = 0; i < values.length; i++) if (values[i] > most) most = values[i]
  const bytes = most > 0xff ? 2 : 1
  const rows = new Uint8Array(height * (1 + bytes * width)) // each begins with its filter; 0: none
  for (let y = 0, from = 0, to = 0; y < height; y++) {
    to++
    for (let x = 0; x < width; x++, from++) {
      if (bytes === 2) rows[to++] = values[from] >> 8
      rows[to++] = values[from]
    }
  }
  const packing = new Blob([rows]).stream().pipeThrough(new CompressionStream('deflate'))
  const packed = new Uint8Array(await new Response(packing).arrayBuffer())
  const header = new DataView(new ArrayBuffer(13))
  header.setUint32(0, width)
  header.setUint32(4, height)
  header.setUint8(8, 8 * bytes)
  header.setUint8(9, GRAY) // compression, filters and interlacing stay 0, the default
  const chunks = [
    chunk('IHDR', new Uint8Array(header.buffer)),
    chunk('IDAT', packed),
    chunk('IEND', new Uint8Array()),
  ]
  return new Blob([SIGNATURE, ...chunks.flat()], { type: 'image/png' })
}

/** @param {string} type @param {Uint8Array<ArrayBuffer>} data */
function chunk(type, data) {
  const name = Uint8Array.from(type, (letter) => letter.charCodeAt(0))
  const ends = new DataView(new ArrayBuffer(8))
  ends.setUint32(0, data.length)
  let crc = -1
  for (const bytes of [name, data]) {
    for (let i = 0; i < bytes.length; i++) crc = CRC[(crc ^ bytes[i]) & 0xff] ^ (crc >>> 8)
  }
  ends.setInt32(4, ~crc)
  return [ends.buffer.slice(0, 4), name, data, ends.buffer.slice(4)]
}

/** The checksum of a chunk, for each byte (PNG, annex D). */
const CRC = Int32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? 0xedb88320 ^ (byte >>> 1) : byte >>> 1
  return byte
})

/**
 * COCO's uncompressed run-lengths: column by column from the top, the lengths of alternating runs
 * outside and inside the mask, outside first.
 *
 * @param {Part} part of an image that holds the whole mask
 * @param {import('./view.js').Size} image
 * @returns {number[]}
 */
export function runLengths({ region: { left, top, right, bottom }, values }, { width, height }) {
  /** @type {number[]} */
  const counts = []
  let [run, within] = [0, 0]
  const add = (/** @type {number} */ value, /** @type {number} */ count) => {
    if (count && value !== within) {
      counts.push(run)
      ;[run, within] = [0, value]
    }
    run += count
  }
  add(0, left * height)
  for (let x = 0; x < right - left; x++) {
    add(0, top)
    for (let i = x; i < values.length; i += right - left) add(values[i], 1)
    add(0, height - bottom)
  }
  add(0, (width - right) * height)
  return [...counts, run]
}

/** @typedef {{ number: number, category: string, part: Part }} Region an object's pixels */

/**
 * A COCO data set. Objects with the same name share a category. A mask is stored as polygons along
 * the edges of its pixels, from which pycocotools makes exactly these pixels; or as run-lengths if it
 * has a hole, which COCO's polygons cannot have. `iscrowd` is 0 for both: training ignores objects
 * with 1.
 */
export class Coco {
  /** @param {import('./view.js').Size} size of each image @param {boolean} [runs] without polygons */
  constructor({ width, height }, runs = false) {
    this.width = width
    this.height = height
    this.runs = runs
    /** @type {object[]} */
    this.images = []
    /** @type {object[]} */
    this.annotations = []
    /** @type {string[]} */
    this.categories = []
  }

  /**
   * @param {string} fileName
   * @param {Iterable<Region>} regions
   * @param {(number: number) => object} ids `id` and further identifiers of an object's annotation
   * @param {object} [which] further fields that identify the image
   */
  add(fileName, regions, ids, which) {
    const { width, height } = this
    const id = this.images.length + 1
    this.images.push({ id, file_name: fileName, width, height, ...which })
    for (const { number, category, part } of regions) {
      const { area, bbox } = extent(part)
      if (!area) continue
      const counts = () => ({ size: [height, width], counts: runLengths(part, this) })
      if (!this.categories.includes(category)) this.categories.push(category)
      this.annotations.push({
        ...ids(number),
        image_id: id,
        category_id: this.categories.indexOf(category) + 1,
        segmentation: (this.runs ? null : contours(part)) ?? counts(),
        area,
        bbox,
        iscrowd: 0,
      })
    }
  }

  /** The data set for JSON. */
  toJSON() {
    const { images, annotations } = this
    const categories = this.categories.map((name, index) => {
      return { id: index + 1, name, supercategory: '' }
    })
    return { images, annotations, categories }
  }
}

/**
 * Add the only image: an annotation's `id` is the object's number.
 *
 * @param {Coco} data
 * @param {string} fileName of the image
 * @param {Iterable<Region>} regions
 */
export const addImage = (data, fileName, regions) =>
  data.add(fileName, regions, (number) => ({ id: number }))

/**
 * Add a frame of a sequence, with TAO's field names (https://taodataset.org): `frame_index` from 0,
 * and `track_id`, the number that an object has on all frames.
 *
 * @param {Coco} data
 * @param {string} fileName
 * @param {Iterable<Region>} regions
 */
export function addFrame(data, fileName, regions) {
  const ids = (/** @type {number} */ number) => {
    return { id: data.annotations.length + 1, track_id: number }
  }
  data.add(fileName, regions, ids, { frame_index: data.images.length })
}

/** @param {Part} part */
function extent({ region, values }) {
  const across = region.right - region.left
  let [area, left, top, right, bottom] = [0, Infinity, Infinity, 0, 0]
  for (let i = 0, x = 0, y = 0; i < values.length; i++) {
    if (values[i]) {
      area++
      left = Math.min(left, x)
      right = Math.max(right, x + 1)
      top = Math.min(top, y)
      bottom = y + 1
    }
    if (++x === across) [x, y] = [0, y + 1]
  }
  return { area, bbox: [region.left + left, region.top + top, right - left, bottom - top] }
}
