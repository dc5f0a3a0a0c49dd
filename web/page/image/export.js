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

/** A data set of COCO. Objects of one category share it. */
export class Coco {
  /** @param {number} width of each image @param {number} height */
  constructor(width, height) {
    this.width = width
    this.height = height
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
   * @param {(number: number) => object} ids `id` of an object's annotation, and what else tells it
   * @param {object} [which] of several images it is
   */
  add(fileName, regions, ids, which) {
    const { width, height } = this
    const id = this.images.length + 1
    this.images.push({ id, file_name: fileName, width, height, ...which })
    for (const { number, category, values, inside } of regions) {
      const { area, bbox } = extent(values, inside, width)
      if (!area) continue
      const counts = runLengths(values, inside, width, height)
      if (!this.categories.includes(category)) this.categories.push(category)
      this.annotations.push({
        ...ids(number),
        image_id: id,
        category_id: this.categories.indexOf(category) + 1,
        segmentation: { size: [height, width], counts },
        area,
        bbox,
        iscrowd: 1,
      })
    }
  }

  /** As JSON has it. */
  toJSON() {
    const { images, annotations } = this
    const categories = this.categories.map((name, index) => {
      return { id: index + 1, name, supercategory: '' }
    })
    return { images, annotations, categories }
  }
}

/**
 * A data set of one image: `id` of an annotation is the object's number.
 *
 * @param {string} fileName of the image
 * @param {number} width
 * @param {number} height
 * @param {Iterable<Region>} regions
 */
export function coco(fileName, width, height, regions) {
  const data = new Coco(width, height)
  data.add(fileName, regions, (number) => ({ id: number }))
  return data.toJSON()
}

/**
 * A frame of a sequence, with names that TAO gave (https://taodataset.org): `frame_index` from 0, and
 * `track_id`, the number that an object keeps.
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

/** @param {ArrayLike<number>} values @param {number} inside @param {number} width */
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
