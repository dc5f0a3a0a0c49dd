// What a model must be fed, and where its masks lie: pixels, coordinates, nothing else.
//
// The reference for other consumers of the files. No DOM and no onnxruntime in it; sizes and
// constants come from the model's manifest.json.

/**
 * Where an image lies in the encoder's square input: its longer side scaled to the input's
 * size, at the top left; the rest is padding.
 *
 * @typedef {object} Placement
 * @property {number} size side of the encoder's input, in pixels
 * @property {number} width of the image
 * @property {number} height of the image
 * @property {number} scale input pixels for one image pixel
 * @property {number} scaledWidth the image's width in the input
 * @property {number} scaledHeight the image's height in the input
 */

/** @typedef {{ x: number, y: number, foreground: boolean }} Point in image pixels */
/** @typedef {[number, number, number, number]} Box two opposite corners, in image pixels */
/** @typedef {{ points: Point[], box: Box | null }} Prompt */

/**
 * @typedef {object} Preprocessing the manifest's `preprocessing`
 * @property {[number, number, number]} mean of RGB values 0 to 255
 * @property {[number, number, number]} std
 * @property {Record<'background' | 'foreground' | 'box_top_left' | 'box_bottom_right', number>} point_labels
 */

/**
 * @param {number} width of the image
 * @param {number} height of the image
 * @param {number} size side of the encoder's input
 * @returns {Placement}
 */
export function placement(width, height, size) {
  const scale = size / Math.max(width, height)
  return {
    size,
    width,
    height,
    scale,
    scaledWidth: Math.max(1, Math.round(width * scale)),
    scaledHeight: Math.max(1, Math.round(height * scale)),
  }
}

/**
 * The encoder's input `image (1, 3, size, size)`, float32: normalized, padded with zeros.
 *
 * @param {Uint8ClampedArray} rgba the image scaled to `scaledWidth` × `scaledHeight`
 * @param {Placement} place
 * @param {Preprocessing} preprocessing
 * @returns {Float32Array}
 */
export function imageTensor(rgba, place, { mean, std }) {
  const { size, scaledWidth, scaledHeight } = place
  if (rgba.length !== scaledWidth * scaledHeight * 4) {
    throw new RangeError(
      `expected ${scaledWidth} × ${scaledHeight} RGBA pixels, found ${rgba.length / 4} pixels`,
    )
  }
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

/**
 * The decoder's `point_coords (1, N, 2)` and `point_labels (1, N)`: a box's corners first. No
 * padding point is needed, the graph adds its own.
 *
 * @param {Prompt} prompt
 * @param {Placement} place
 * @param {Preprocessing} preprocessing
 * @returns {{ coords: Float32Array, labels: Float32Array, count: number }}
 */
export function promptTensors({ points, box }, place, { point_labels: labelOf }) {
  const found = points.map(({ x, y, foreground }) => ({
    x,
    y,
    label: foreground ? labelOf.foreground : labelOf.background,
  }))
  if (box) {
    const [x0, y0, x1, y1] = box
    found.unshift(
      { x: Math.min(x0, x1), y: Math.min(y0, y1), label: labelOf.box_top_left },
      { x: Math.max(x0, x1), y: Math.max(y0, y1), label: labelOf.box_bottom_right },
    )
  }
  return {
    coords: Float32Array.from(found.flatMap(({ x, y }) => [x * place.scale, y * place.scale])),
    labels: Float32Array.from(found, ({ label }) => label),
    count: found.length,
  }
}

/**
 * A mask over the image, or over the image drawn at another size: 1 where the logits,
 * interpolated linearly between the centres of their cells, are above 0.
 *
 * @param {Float32Array} logits one low-resolution mask, `maskSize` × `maskSize`
 * @param {number} maskSize
 * @param {Placement} place
 * @param {number} width of the result
 * @param {number} height of the result
 * @returns {Uint8Array} `width` × `height`, 0 or 1
 */
export function maskOver(logits, maskSize, place, width, height) {
  const column = cells(width, (place.scaledWidth / place.size) * maskSize, maskSize)
  const row = cells(height, (place.scaledHeight / place.size) * maskSize, maskSize)
  const mask = new Uint8Array(width * height)
  const line = new Float32Array(maskSize)
  for (let y = 0, to = 0; y < height; y++) {
    const above = row.first[y] * maskSize
    const below = row.second[y] * maskSize
    const part = row.part[y]
    for (let x = 0; x < maskSize; x++) {
      line[x] = logits[above + x] + part * (logits[below + x] - logits[above + x])
    }
    for (let x = 0; x < width; x++, to++) {
      const left = line[column.first[x]]
      mask[to] = left + column.part[x] * (line[column.second[x]] - left) > 0 ? 1 : 0
    }
  }
  return mask
}

/**
 * For each of `count` pixels spread over `extent` of `limit` cells: the two cells whose
 * centres it lies between, and how far from the first.
 *
 * @param {number} count
 * @param {number} extent
 * @param {number} limit
 */
function cells(count, extent, limit) {
  const first = new Int32Array(count)
  const second = new Int32Array(count)
  const part = new Float32Array(count)
  for (let i = 0; i < count; i++) {
    const center = Math.min(Math.max(((i + 0.5) / count) * extent - 0.5, 0), limit - 1)
    first[i] = Math.floor(center)
    second[i] = Math.min(first[i] + 1, limit - 1)
    part[i] = center - first[i]
  }
  return { first, second, part }
}

/**
 * @param {ArrayLike<number>} scores predicted IoU of each mask
 * @returns {number} the index of the highest
 */
export function best(scores) {
  let index = 0
  for (let i = 1; i < scores.length; i++) if (scores[i] > scores[index]) index = i
  return index
}
