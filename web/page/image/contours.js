// The outlines of a mask, along the edges of its pixels. No DOM in it.

/** One step to the right, down, left, up. */
const STEPS = [
  [1, 0],
  [0, 1],
  [-1, 0],
  [0, -1],
]

/**
 * The outlines of a mask, a polygon for each of its pieces: pixels that touch at a corner alone are
 * pieces of their own.
 *
 * @param {import('./masks.js').Part} part
 * @returns {number[][] | null} x and y by turns, in pixels of the image; null where it has a hole
 */
export function contours({ region: { left, top, right, bottom }, values }) {
  const [width, height] = [right - left, bottom - top]
  const isInside = (/** @type {number} */ x, /** @type {number} */ y) =>
    x >= 0 && y >= 0 && x < width && y < height && values[y * width + x] === 1
  /** Pixels whose upper edge an outline has. */
  const seen = new Uint8Array(values.length)
  const polygons = []
  for (let i = 0; i < values.length; i++) {
    const [startX, startY] = [i % width, Math.floor(i / width)]
    if (!values[i] || seen[i] || isInside(startX, startY - 1)) continue
    // The mask is on the right of each step, so a hole is gone round the other way.
    let [x, y, way, area] = [startX, startY, 0, 0]
    /** @type {number[]} */
    const polygon = []
    do {
      if (way === 0) seen[y * width + x] = 1
      x += STEPS[way][0]
      y += STEPS[way][1]
      area += STEPS[way][1] * x // Green's: along the steps down, less those up
      // The pixels ahead, to the right and to the left.
      const [across, down] = [x - (way === 1 || way === 2 ? 1 : 0), y - (way >= 2 ? 1 : 0)]
      const [acrossLeft, downLeft] = [x - (way >= 2 ? 1 : 0), y - (way === 0 || way === 3 ? 1 : 0)]
      const turn = !isInside(across, down) ? 1 : isInside(acrossLeft, downLeft) ? 3 : 0
      if (turn) polygon.push(left + x, top + y)
      way = (way + turn) % 4
    } while (x !== startX || y !== startY || way !== 0)
    if (area < 0) return null
    polygons.push(polygon)
  }
  return polygons
}
