// Converts pixels and coordinates to a model's inputs, and its masks to pixels of the image.
//
// This is the reference for other consumers of the files. No DOM and no onnxruntime; sizes and
// constants come from the model's manifest.json. feeds.js makes the decoder's tensors.

/**
 * Where an image lies in the square that the encoder computes on. It is stretched over the whole
 * square; or its longer side is scaled to the square's side and it lies at the top left, followed by
 * padding; or it is scaled to fit a canvas and lies at the top left, with the rest of the canvas black.
 *
 * @typedef {object} Placement
 * @property {number} size side of the square, in pixels
 * @property {number} width of the image
 * @property {number} height of the image
 * @property {number} scaleX input pixels for one image pixel, from left to right
 * @property {number} scaleY and from top to bottom
 * @property {number} scaledWidth the image's width in the input
 * @property {number} scaledHeight the image's height in the input
 * @property {number} [canvas] the height of the canvas, and so of the input; its width is `size`. For
 *   the decoder the canvas is the image
 * @property {Part} [crop] the part of a larger image that this image is; missing for a whole image
 */
/**
 * A part of an image; each number is a fraction of the image's side.
 *
 * @typedef {{ left: number, top: number, width: number, height: number }} Part
 */
/** @typedef {'stretch' | 'longest side' | 'canvas'} Resize */

// A canvas's height for one pixel of its width: AnyLabeling's 684 of 1024.
const CANVAS_HEIGHT = 684 / 1024

/** @typedef {{ x: number, y: number, foreground: boolean }} Point in image pixels */
/** @typedef {[number, number, number, number]} Box two opposite corners, in image pixels */
/** @typedef {{ points: Point[], box: Box | null }} Prompt */

/**
 * @typedef {object} Preprocessing the manifest's `preprocessing`
 * @property {[number, number, number]} mean of RGB values 0 to 255
 * @property {[number, number, number]} std
 * @property {Resize} resize
 * @property {Record<'padding' | 'background' | 'foreground' | 'box_top_left' | 'box_bottom_right',
 *   number>} point_labels
 */

/**
 * @param {number} width of the image
 * @param {number} height of the image
 * @param {number} size side of the square that the encoder computes on
 * @param {Resize} resize
 * @returns {Placement}
 */
export function placement(width, height, size, resize) {
  if (resize === 'stretch') {
    const [scaleX, scaleY] = [size / width, size / height]
    return { size, width, height, scaleX, scaleY, scaledWidth: size, scaledHeight: size }
  }
  if (resize !== 'longest side' && resize !== 'canvas') {
    throw new Error(`unknown resize ${JSON.stringify(resize)} in manifest.json`)
  }
  const canvas = resize === 'canvas' ? Math.round(size * CANVAS_HEIGHT) : undefined
  const scale = canvas ? Math.min(size / width, canvas / height) : size / Math.max(width, height)
  return {
    size,
    width,
    height,
    scaleX: scale,
    scaleY: scale,
    scaledWidth: Math.max(1, Math.round(width * scale)),
    scaledHeight: Math.max(1, Math.round(height * scale)),
    ...(canvas && { canvas }),
  }
}

/**
 * The encoder's image `(1, 3, size, size)`, float32, normalized and padded with zeros. Or a canvas
 * `(height, size, 3)` of RGB values, which the graph normalizes and pads.
 *
 * @param {Uint8ClampedArray} rgba the image scaled to `scaledWidth` × `scaledHeight`
 * @param {Placement} place
 * @param {Preprocessing} preprocessing
 * @returns {Float32Array}
 */
export function imageTensor(rgba, place, { mean, std }) {
  const { size, scaledWidth, scaledHeight, canvas } = place
  if (rgba.length !== scaledWidth * scaledHeight * 4) {
    throw new RangeError(
      `expected ${scaledWidth} × ${scaledHeight} RGBA pixels, found ${rgba.length / 4} pixels`,
    )
  }
  if (canvas) return canvasTensor(rgba, size, canvas, scaledWidth)
  const tensor = new Float32Array(3 * size * size)
  for (let channel = 0; channel < 3; channel++) {
    const values = Float32Array.from({ length: 256 }, (_, v) => (v - mean[channel]) / std[channel])
    for (let y = 0; y < scaledHeight; y++) {
      let from = y * scaledWidth * 4 + channel
      const start = (channel * size + y) * size
      for (let to = start; to < start + scaledWidth; to++, from += 4) tensor[to] = values[rgba[from]]
    }
  }
  return tensor
}

/** @param {Uint8ClampedArray} rgba @param {number} width @param {number} height @param {number} row */
function canvasTensor(rgba, width, height, row) {
  const tensor = new Float32Array(3 * width * height)
  for (let from = 0; from < rgba.length; from += 4) {
    const pixel = from / 4
    const y = Math.floor(pixel / row)
    tensor.set(rgba.subarray(from, from + 3), 3 * (y * width + (pixel - y * row)))
  }
  return tensor
}

/**
 * A prompt's points and box in pixels of the input. The box is ordered left, top, right, bottom.
 *
 * @param {Prompt} prompt
 * @param {Placement} place
 * @returns {Prompt}
 */
export function inInput({ points, box }, { scaleX, scaleY }) {
  const [left, top, right, bottom] = box ?? [0, 0, 0, 0]
  return {
    points: points.map(({ x, y, foreground }) => ({ x: x * scaleX, y: y * scaleY, foreground })),
    box: box && [
      Math.min(left, right) * scaleX,
      Math.min(top, bottom) * scaleY,
      Math.max(left, right) * scaleX,
      Math.max(top, bottom) * scaleY,
    ],
  }
}

/**
 * A mask over the image, or over the image drawn at another size: 1 where the logits,
 * interpolated linearly between the centres of their cells, are above the threshold. For a crop, the
 * image is the larger one, and the region lies in the crop.
 *
 * @param {Float32Array} logits one low-resolution mask, `maskSize` × `maskSize`
 * @param {number} maskSize
 * @param {Placement} place
 * @param {number} width of the image as drawn
 * @param {number} height of the image as drawn
 * @param {number} threshold
 * @param {{ left: number, top: number, right: number, bottom: number }} [region] the wanted region of
 *   the image as drawn; by default all of it
 * @returns {Uint8Array} 0 or 1 for each pixel of the region
 */
export function maskOver(
  logits,
  maskSize,
  place,
  width,
  height,
  threshold,
  { left, top, right, bottom } = { left: 0, top: 0, right: width, bottom: height },
) {
  const crop = place.crop ?? ALL
  const across = (place.scaledWidth / place.size) * maskSize
  const down = (place.scaledHeight / place.size) * maskSize
  const column = cells(width, across / crop.width, maskSize, crop.left)
  const row = cells(height, down / crop.height, maskSize, crop.top)
  const mask = new Uint8Array((right - left) * (bottom - top))
  const line = new Float32Array(maskSize)
  for (let y = top, to = 0; y < bottom; y++) {
    const above = row.first[y] * maskSize
    const below = row.second[y] * maskSize
    const part = row.part[y]
    for (let x = 0; x < maskSize; x++) {
      line[x] = logits[above + x] + part * (logits[below + x] - logits[above + x])
    }
    for (let x = left; x < right; x++, to++) {
      const first = line[column.first[x]]
      mask[to] = first + column.part[x] * (line[column.second[x]] - first) > threshold ? 1 : 0
    }
  }
  return mask
}

/** @type {Part} */
export const ALL = { left: 0, top: 0, width: 1, height: 1 }

/**
 * For each of `count` pixels spread over `extent` of `limit` cells: the two cells between whose centres
 * it lies, and its distance from the first.
 *
 * @param {number} count
 * @param {number} extent
 * @param {number} limit
 * @param {number} start the part of the extent that lies before the first cell
 */
function cells(count, extent, limit, start) {
  const first = new Int32Array(count)
  const second = new Int32Array(count)
  const part = new Float32Array(count)
  for (let i = 0; i < count; i++) {
    const center = Math.min(Math.max(((i + 0.5) / count) * extent - 0.5 - start * extent, 0), limit - 1)
    first[i] = Math.floor(center)
    second[i] = Math.min(first[i] + 1, limit - 1)
    part[i] = center - first[i]
  }
  return { first, second, part }
}
