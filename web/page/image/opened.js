// Reads masks from a file that was saved here or elsewhere: labels, or COCO's annotations. No DOM.

import { NAMELESS } from './layers.js'
import { packed } from './pixel-mask.js'

/** @typedef {import('./masks.js').Region} Region */
/** @typedef {import('./pixel-mask.js').Pixels} Pixels */
/** @typedef {import('./view.js').Size} Size */
/** @typedef {Map<number, Pixels>} Frame by the object's number */

/**
 * The objects of a label image.
 *
 * @param {ArrayLike<number>} labels row by row, 0 where no object is
 * @param {Size} image
 * @returns {Frame}
 */
export function fromLabels(labels, image) {
  /** @type {Map<number, Region>} */
  const regions = new Map()
  for (let y = 0; y < image.height; y++) {
    const [start, end] = [y * image.width, (y + 1) * image.width]
    for (let i = start, first = i; i < end; first = i) {
      const label = labels[first]
      while (i < end && labels[i] === label) i++
      if (!label) continue
      const region = regions.get(label) ?? { left: first - start, top: y, right: 0, bottom: 0 }
      region.left = Math.min(region.left, first - start)
      region.right = Math.max(region.right, i - start)
      region.bottom = y + 1
      regions.set(label, region)
    }
  }
  const numbers = [...regions.keys()].sort((one, other) => one - other)
  return new Map(
    numbers.map((number) => {
      const region = /** @type {Region} */ (regions.get(number))
      const { left, top, right, bottom } = region
      const values = new Uint8Array((right - left) * (bottom - top))
      for (let y = top, to = 0; y < bottom; y++) {
        const row = y * image.width
        for (let x = left; x < right; x++, to++) if (labels[row + x] === number) values[to] = 1
      }
      return [number, packed({ region, values }, image)]
    }),
  )
}

/**
 * The values of a PNG with one channel, as labels have. A browser would keep only 8 of its bits.
 *
 * @param {ArrayBuffer} file
 * @returns {Promise<Size & { labels: ArrayLike<number> }>}
 * @throws {Error} with a sentence, if the file is not such a PNG
 */
export async function fromPng(file) {
  const view = new DataView(file)
  if (file.byteLength < 33 || view.getUint32(0) !== 0x89504e47) throw new Error('It is not a PNG.')
  const [width, height] = [view.getUint32(16), view.getUint32(20)]
  const [depth, kind, interlaced] = [24, 25, 28].map((at) => view.getUint8(at))
  if (depth < 8 || (kind !== 0 && kind !== 3) || interlaced) {
    throw new Error('Expected one channel of 8 or 16 bits, not interlaced: save labels as a TIFF.')
  }
  const parts = []
  for (let at = 8; at + 8 <= file.byteLength; at += 12 + view.getUint32(at)) {
    const isData = view.getUint32(at + 4) === 0x49444154
    if (isData) parts.push(new Uint8Array(file, at + 8, view.getUint32(at)))
  }
  const opening = new Blob(parts).stream().pipeThrough(new DecompressionStream('deflate'))
  const rows = new Uint8Array(await new Response(opening).arrayBuffer())
  const bytes = depth / 8
  const across = width * bytes
  const labels = new Uint16Array(width * height)
  let above = new Uint8Array(across)
  for (let y = 0; y < height; y++) {
    const filter = rows[y * (across + 1)]
    const row = rows.subarray(y * (across + 1) + 1, (y + 1) * (across + 1))
    for (let i = 0; i < across; i++) {
      const [left, corner] = i < bytes ? [0, 0] : [row[i - bytes], above[i - bytes]]
      row[i] += guess[filter](left, above[i], corner)
    }
    for (let x = 0; x < width; x++) {
      labels[y * width + x] = bytes === 2 ? 256 * row[2 * x] + row[2 * x + 1] : row[x]
    }
    above = row
  }
  return { width, height, labels }
}

/**
 * What each filter subtracted from a byte: PNG, section 9.
 *
 * @type {((left: number, above: number, corner: number) => number)[]}
 */
const guess = [
  () => 0,
  (left) => left,
  (_, above) => above,
  (left, above) => (left + above) >> 1,
  (left, above, corner) => {
    const [across, down] = [Math.abs(above - corner), Math.abs(left - corner)]
    const both = Math.abs(left + above - 2 * corner)
    if (across <= down && across <= both) return left
    return down <= both ? above : corner
  },
]

/**
 * The objects of a COCO data set on the frames of the open image.
 *
 * @param {any} data
 * @param {Size & { count: number, fileOf: (frame: number) => string }} open
 * @param {(polygons: number[][], region: Region) => Uint8Array} fill returns 1 inside any polygon
 * @returns {{ frames: Map<number, Frame>, names: Map<number, string> }}
 * @throws {Error} with a sentence, if no part of the data belongs to the open image
 */
export function fromCoco(data, open, fill) {
  if (!Array.isArray(data?.images) || !Array.isArray(data.annotations)) {
    throw new Error('Expected COCO, with a list of images and a list of annotations.')
  }
  const files = Array.from({ length: open.count }, (_, frame) => open.fileOf(frame))
  /** @type {Map<unknown, number>} */
  const frameOf = new Map()
  for (const { id, file_name: name, frame_index: index, width, height } of data.images) {
    const isOnly = open.count === 1 && data.images.length === 1
    const frame = isOnly ? 0 : (index ?? files.indexOf(name))
    if (!(frame >= 0 && frame < open.count)) continue
    sameSize({ width, height }, open)
    frameOf.set(id, frame)
  }
  if (!frameOf.size) {
    throw new Error(`It has masks of ${data.images[0]?.file_name}, but none of ${files[0]}.`)
  }
  /** @type {Map<unknown, string>} */
  const categories = new Map(data.categories?.map((/** @type {any} */ each) => [each.id, each.name]))
  /** @type {Map<number, Frame>} */
  const frames = new Map()
  /** @type {Map<number, string>} */
  const names = new Map()
  for (const { id, track_id: number = id, segmentation, ...rest } of data.annotations) {
    const frame = frameOf.get(rest.image_id)
    if (frame === undefined || !segmentation) continue
    const pixels = Array.isArray(segmentation)
      ? filled(segmentation, open, fill)
      : fromLabels(unrolled(segmentation.counts, open), open).get(1)
    if (pixels) frames.set(frame, (frames.get(frame) ?? new Map()).set(number, pixels))
    const name = categories.get(rest.category_id) ?? NAMELESS
    names.set(number, name === NAMELESS ? '' : name)
  }
  return { frames, names }
}

/** @param {Size} masks @param {Size} image @throws {Error} if they differ */
export function sameSize(masks, image) {
  if (masks.width === image.width && masks.height === image.height) return
  throw new Error(
    `Its masks have ${masks.width} × ${masks.height} pixels, but the open image has ` +
      `${image.width} × ${image.height}: open the image that the masks belong to.`,
  )
}

/**
 * @param {number[][]} polygons alternating x and y
 * @param {Size} image
 * @param {(polygons: number[][], region: Region) => Uint8Array} fill
 */
function filled(polygons, image, fill) {
  let [left, top, right, bottom] = [image.width, image.height, 0, 0]
  for (const polygon of polygons) {
    for (let i = 0; i < polygon.length; i += 2) {
      left = Math.max(0, Math.min(left, Math.floor(polygon[i])))
      right = Math.min(image.width, Math.max(right, Math.ceil(polygon[i])))
      top = Math.max(0, Math.min(top, Math.floor(polygon[i + 1])))
      bottom = Math.min(image.height, Math.max(bottom, Math.ceil(polygon[i + 1])))
    }
  }
  if (left >= right || top >= bottom) return undefined
  const region = { left, top, right, bottom }
  return packed({ region, values: fill(polygons, region) }, image)
}

/**
 * The pixels of run-lengths, as an image with one label.
 *
 * @param {unknown} counts
 * @param {Size} image
 */
function unrolled(counts, { width, height }) {
  if (!Array.isArray(counts)) {
    throw new Error(
      'Its run-lengths are compressed, but this page reads only lists of numbers, or polygons: ' +
        'convert the masks to labels with annToMask of pycocotools, and open the labels.',
    )
  }
  const labels = new Uint8Array(width * height)
  for (let i = 0, at = 0; i < counts.length; at += counts[i++]) {
    for (let j = at; i % 2 && j < at + counts[i]; j++) {
      labels[(j % height) * width + Math.floor(j / height)] = 1
    }
  }
  return labels
}
