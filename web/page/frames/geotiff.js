// Loads geotiff with the first TIFF, and works around the pixels that version 3.0.5 misreads. No DOM.

import { addJpeg, jpegOf } from './jpeg.js'
import { lzwDecoded } from './lzw.js'

/** @typedef {import('geotiff').GeoTIFFImage} Page */
/** @typedef {typeof import('geotiff')} Library */

const [LZW, JPEG] = [5, 7]
const RGB = 2
/** Tags that are set here. */
const [BITS, COMPRESSION, PHOTOMETRIC, OFFSETS] = [258, 259, 262, 273]
const [PREDICTOR, FORMAT] = [317, 339]
const [HORIZONTAL, FLOATING] = [2, 3]
/** Values of SampleFormat: floating-point, and undefined. */
const [FLOAT, UNDEFINED] = [3, 4]

/** @type {Promise<Library> | undefined} */
let library

/** @param {() => Promise<Library>} [load] */
export function geotiff(load = loadHere) {
  library ??= load().then((loaded) => {
    const decoder = class extends loaded.BaseDecoder {
      /** @param {ArrayBufferLike} block */
      decodeBlock = (block) => lzwDecoded(block)
    }
    loaded.addDecoder(LZW, async () => decoder)
    addJpeg(loaded)
    return loaded
  })
  return library
}

/** @returns {Promise<Library>} */
async function loadHere() {
  const address = '/geotiff/geotiff.js' // not a module: it sets a global name
  await import(address)
  return /** @type {any} */ (globalThis).GeoTIFF
}

/**
 * All pages of a file, in the order of their directories.
 *
 * @param {Blob} file
 * @returns {Promise<Page[]>}
 */
export async function pagesOf(file) {
  const { GeoTIFF } = await geotiff()
  /** @param {{ offset: number, length: number }[]} parts */
  const fetch = (parts) =>
    Promise.all(parts.map(({ offset: at, length }) => file.slice(at, at + length).arrayBuffer()))
  const tiff = await GeoTIFF.fromSource(/** @type {any} */ ({ fetch, fileSize: file.size }))
  // Fields read later would be read as little-endian, regardless of the file's byte order.
  tiff.parser.eager = true
  const pages = []
  /** @type {Set<number>} */
  const offsets = new Set()
  for (let next = tiff.firstIFDOffset; next && !offsets.has(next); ) {
    offsets.add(next)
    const page = await tiff.getImage(pages.length)
    pages.push(page)
    next = page.fileDirectory.nextIFDByteOffset
  }
  return pages
}

/** A field of a page's directory. @param {Page} page @param {string | number} tag @returns {any} */
export const field = (page, tag) => page.fileDirectory.getValue(/** @type {any} */ (tag))

/** @param {Page} page @returns {Map<number, any>} */
const fieldsOf = (page) => /** @type {any} */ (page.fileDirectory.actualizedFields)

/**
 * Images that follow the first one without their own directories.
 *
 * @param {Page} first uncompressed
 * @param {number} count
 * @param {number} bytes of each
 * @returns {Page[]}
 */
export function imagesBehind(first, count, bytes) {
  const { fileDirectory, littleEndian, source } = first
  const Directory = /** @type {any} */ (fileDirectory.constructor)
  const Image = /** @type {any} */ (first.constructor)
  const offsets = Array.from(field(first, 'StripOffsets'))
  return Array.from({ length: count }, (_, index) => {
    const fields = new Map(fieldsOf(first))
    fields.set(OFFSETS, offsets.map((offset) => offset + index * bytes))
    const directory = new Directory(fields, new Map(), new Map(), 0)
    return new Image(directory, littleEndian, false, source)
  })
}

/**
 * Adjust a page so that geotiff reads it correctly: big-endian samples, and samples of odd bit depths.
 *
 * @param {Page} page
 * @returns {boolean} whether the samples as read are differences along each row of a tile
 */
export function mend(page) {
  const fields = fieldsOf(page)
  const samples = page.getSamplesPerPixel()
  if (!fields.has(BITS)) fields.set(BITS, new Uint16Array(samples).fill(1))
  const format = page.getSampleFormat()
  if (format === UNDEFINED) fields.delete(FORMAT)
  const bits = page.getBitsPerSample()
  const predictor = fields.get(PREDICTOR)
  const jpeg = fields.get(COMPRESSION) === JPEG && jpegOf(page, fields.get(PHOTOMETRIC))
  if (jpeg) {
    fields.set(COMPRESSION, jpeg)
    if (page.getSamplesPerPixel() === 3) fields.set(PHOTOMETRIC, RGB)
  }
  if (bits % 8) {
    // geotiff unpacks them to this machine's numbers, but then reads them as if still packed.
    page.getBitsPerSample = () => bits
    fields.set(BITS, new Uint16Array(samples).fill(bits < 8 ? 8 : 16))
    page.littleEndian = true
  } else if (predictor === FLOATING) {
    page.littleEndian = true // the predictor's decoder returns little-endian numbers
  } else if (predictor === HORIZONTAL && bits > 8 && !page.littleEndian && format !== FLOAT) {
    fields.set(PREDICTOR, 1) // geotiff would add swapped bytes
    return true
  }
  return false
}

/**
 * Turn differences into values, in place.
 *
 * @param {ArrayBufferView} plane of samples
 * @param {Page} page
 */
export function sumRows(plane, page) {
  const [width, tile] = [page.getWidth(), page.getTileWidth()]
  const { buffer } = plane
  const sums = page.getBitsPerSample() === 16 ? new Uint16Array(buffer) : new Uint32Array(buffer)
  for (let i = 0; i < sums.length; i++) if ((i % width) % tile) sums[i] += sums[i - 1]
}
