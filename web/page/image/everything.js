// Segments everything in an image: clicks on each point of a grid, and keeps the masks that are good,
// stable and different from each other. No DOM and no onnxruntime.
//
// It follows sam2's SAM2AutomaticMaskGenerator (sam2/automatic_mask_generator.py), which requires a
// predicted IoU of 0.8 and a stability of 0.95, and removes overlaps of 0.7 (of boxes there, of masks
// here). For each click only the best mask counts, the one that a single click would draw.

/** @typedef {import('../shared/preprocessing.js').Placement} Placement */
/**
 * A mask that may show an object.
 *
 * @typedef {object} Candidate
 * @property {Float32Array} logits `size` × `size`
 * @property {number} size
 * @property {number} score its predicted IoU
 * @property {number} stability
 * @property {import('../shared/preprocessing.js').Point} point the click
 * @property {Uint32Array} cells a bit for each cell, 1 inside
 * @property {number} area the number of cells inside
 * @property {[number, number, number, number]} box around them: left, top, right and bottom, in
 *   cells; right and bottom are exclusive
 */
/** @typedef {{ score: number, stability: number }} Limits the least values for an object */

/** The offset from the threshold, in logits, for a mask's stability; as in sam2. */
const OFFSET = 1
/** From this IoU on, two masks show the same object, and the mask with the lower score is dropped. */
const SAME = 0.7

/**
 * A click in the middle of each cell of a grid.
 *
 * @param {number} side cells in each direction
 * @param {number} width of the image
 * @param {number} height of the image
 * @returns {import('../shared/preprocessing.js').Prompt[]} row by row, in image pixels
 */
export function grid(side, width, height) {
  return Array.from({ length: side * side }, (_, i) => {
    const [column, row] = [i % side, Math.floor(i / side)]
    const x = ((column + 0.5) / side) * width
    const y = ((row + 0.5) / side) * height
    return { points: [{ x, y, foreground: true }], box: null }
  })
}

/**
 * A mask as a candidate, or null if no part of it is in the image.
 *
 * Its stability is the IoU of the mask cut above and below the threshold: sam2's
 * `calculate_stability_score` (sam2/utils/amg.py).
 *
 * @param {Float32Array} logits `size` × `size`
 * @param {number} size
 * @param {number} score
 * @param {import('../shared/preprocessing.js').Point} point the click, in image pixels
 * @param {Placement} place
 * @param {number} threshold
 * @returns {Candidate | null}
 */
export function candidate(logits, size, score, point, place, threshold) {
  const columns = Math.ceil((place.scaledWidth / place.size) * size)
  const rows = Math.ceil((place.scaledHeight / place.size) * size)
  const cells = new Uint32Array(Math.ceil((size * size) / 32))
  let [area, surely, perhaps] = [0, 0, 0]
  let [left, top, right, bottom] = [size, size, 0, 0]
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++) {
      const i = y * size + x
      const logit = logits[i]
      if (logit > threshold + OFFSET) surely++
      if (logit > threshold - OFFSET) perhaps++
      if (!(logit > threshold)) continue
      cells[i >> 5] |= 1 << (i & 31)
      area++
      left = Math.min(left, x)
      right = Math.max(right, x + 1)
      top = Math.min(top, y)
      bottom = y + 1
    }
  }
  if (!area) return null
  const stability = surely / perhaps
  return { logits, size, score, stability, point, cells, area, box: [left, top, right, bottom] }
}

/**
 * The IoU of two masks, counted in cells.
 *
 * @param {Candidate} one
 * @param {Candidate} other
 * @returns {number}
 */
export function overlap(one, other) {
  const [left, top, right, bottom] = one.box
  const [otherLeft, otherTop, otherRight, otherBottom] = other.box
  if (left >= otherRight || otherLeft >= right || top >= otherBottom || otherTop >= bottom) return 0
  let both = 0
  for (let i = 0; i < one.cells.length; i++) both += bits(one.cells[i] & other.cells[i])
  return both / (one.area + other.area - both)
}

/** The number of set bits of 32. @param {number} word */
function bits(word) {
  let count = 0
  for (; word; word &= word - 1) count++
  return count
}

/**
 * The objects among candidates: those within the limits that do not repeat an object with a higher
 * score.
 *
 * @param {Candidate[]} candidates
 * @param {Limits} limits
 * @param {Candidate[]} [present] objects that already exist
 * @returns {Candidate[]} further objects, the best score first
 */
export function objectsAmong(candidates, { score, stability }, present = []) {
  const good = candidates.filter((each) => each.score >= score && each.stability >= stability)
  const objects = [...present]
  for (const each of good.sort((one, other) => other.score - one.score)) {
    if (objects.every((object) => overlap(object, each) < SAME)) objects.push(each)
  }
  return objects.slice(present.length)
}
