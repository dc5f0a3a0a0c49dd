// The outlines of a mask, along the edges of its pixels. No DOM.

/** One step to the right, down, left, up. */
const STEPS = [
  [1, 0],
  [0, 1],
  [-1, 0],
  [0, -1],
]

/**
 * The outlines of a mask, a polygon for each of its pieces. Pixels that touch only at a corner belong
 * to different pieces.
 *
 * @param {import('./masks.js').Part} part
 * @returns {number[][] | null} alternating x and y, in pixels of the image; null for a mask with a
 *   hole
 */
export function contours({ region: { left, top, right, bottom }, values }) {
  const [width, height] = [right - left, bottom - top]
  const isInside = (/** @type {number} */ x, /** @type {number} */ y) =>
    x >= 0 && y >= 0 && x < width && y < height && values[y * width + x] === 1
  /** Pixels whose upper edge is in an outline. */
  const seen = new Uint8Array(values.length)
  const polygons = []
  for (let i = 0; i < values.length; i++) {
    const [startX, startY] = [i % width, Math.floor(i / width)]
    if (!values[i] || seen[i] || isInside(startX, startY - 1)) continue
    // The mask is on the right of each step, so holes are traversed the other way round.
    let [x, y, way, area] = [startX, startY, 0, 0]
    /** @type {number[]} */
    const polygon = []
    do {
      if (way === 0) seen[y * width + x] = 1
      x += STEPS[way][0]
      y += STEPS[way][1]
      area += STEPS[way][1] * x // Green's theorem: steps down count positive, steps up negative
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
