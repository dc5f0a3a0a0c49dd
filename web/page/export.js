// What is saved: a picture of labels, and COCO's annotations. No DOM in it.

/** The largest number that a picture of 8 bits has. */
export const MOST = 255

/**
 * Gray pixels, RGBA.
 *
 * @param {ArrayLike<number>} values
 * @param {number} [factor]
 * @returns {Uint8ClampedArray<ArrayBuffer>}
 * @throws {RangeError} where a value is above 255
 */
export function grayPixels(values, factor = 1) {
  const pixels = new Uint32Array(values.length)
  for (let i = 0; i < values.length; i++) {
    const value = values[i] * factor
    if (value > MOST) {
      throw new RangeError(
        `Object ${value} has no value in a PNG of 8 bits, which ends at ${MOST}. ` +
          'Save COCO (JSON) instead.',
      )
    }
    pixels[i] = 0xff000000 + value * 0x010101
  }
  return new Uint8ClampedArray(pixels.buffer)
}

/**
 * COCO's run-lengths, not compressed: column by column from the top, by turns how many pixels are
 * outside and how many inside, outside first.
 *
 * @param {ArrayLike<number>} values row by row
 * @param {number} inside the value of the pixels that are inside
 * @param {number} width
 * @param {number} height
 * @returns {number[]}
 */
export function runLengths(values, inside, width, height) {
  const counts = []
  let [run, within] = [0, false]
  for (let x = 0; x < width; x++) {
    for (let i = x; i < width * height; i += width) {
      if ((values[i] === inside) !== within) {
        counts.push(run)
        ;[run, within] = [0, !within]
      }
      run++
    }
  }
  counts.push(run)
  return counts
}

/**
 * @typedef {object} Region an object's pixels
 * @property {number} number
 * @property {string} category
 * @property {ArrayLike<number>} values
 * @property {number} inside the value of the pixels that are the object's
 */

/**
 * A data set of COCO with one image. Objects of one category share it; `id` of an annotation is the
 * object's number.
 *
 * @param {string} fileName of the image
 * @param {number} width
 * @param {number} height
 * @param {Iterable<Region>} regions
 */
export function coco(fileName, width, height, regions) {
  /** @type {string[]} */
  const names = []
  const annotations = []
  for (const { number, category, values, inside } of regions) {
    const counts = runLengths(values, inside, width, height)
    const { area, bbox } = extent(values, inside, width)
    if (!area) continue
    if (!names.includes(category)) names.push(category)
    annotations.push({
      id: number,
      image_id: 1,
      category_id: names.indexOf(category) + 1,
      segmentation: { size: [height, width], counts },
      area,
      bbox,
      iscrowd: 1,
    })
  }
  return {
    images: [{ id: 1, file_name: fileName, width, height }],
    annotations,
    categories: names.map((name, index) => ({ id: index + 1, name, supercategory: '' })),
  }
}

/**
 * @param {ArrayLike<number>} values
 * @param {number} inside
 * @param {number} width
 */
function extent(values, inside, width) {
  let [area, left, top, right, bottom] = [0, width, Infinity, 0, 0]
  for (let i = 0; i < values.length; i++) {
    if (values[i] !== inside) continue
    const [x, y] = [i % width, Math.floor(i / width)]
    area++
    left = Math.min(left, x)
    right = Math.max(right, x + 1)
    top = Math.min(top, y)
    bottom = y + 1
  }
  return { area, bbox: [left, top, right - left, bottom - top] }
}
