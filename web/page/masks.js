// What is counted on masks, and masks made into one picture of labels. No DOM in it.

/** @param {Uint8Array} mask @returns {number} how many of its pixels are inside */
export function areaOf(mask) {
  let area = 0
  for (let i = 0; i < mask.length; i++) area += mask[i]
  return area
}

/**
 * A place inside a mask, as near to its middle as can be.
 *
 * @param {Uint8Array} mask
 * @param {number} width
 * @returns {{ x: number, y: number } | null} in parts of the mask; null where it is empty
 */
export function middleOf(mask, width) {
  const height = mask.length / width
  let area = 0
  let sumX = 0
  let sumY = 0
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      if (!mask[i]) continue
      area++
      sumX += x
      sumY += y
    }
  }
  if (!area) return null
  const [middleX, middleY] = [sumX / area, sumY / area]
  const nearest = { x: 0, y: 0 }
  let least = Infinity
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      if (!mask[i]) continue
      const distance = (x - middleX) ** 2 + (y - middleY) ** 2
      if (distance >= least) continue
      least = distance
      nearest.x = x
      nearest.y = y
    }
  }
  return { x: (nearest.x + 0.5) / width, y: (nearest.y + 0.5) / height }
}

/**
 * For each pixel the number of its object, or 0. Where objects overlap, the smaller one is on top.
 *
 * @param {{ number: number, area: number, mask: () => Uint8Array }[]} objects their masks are made
 *   one after the other
 * @param {number} pixels
 * @returns {Uint16Array}
 */
export function labelled(objects, pixels) {
  const labels = new Uint16Array(pixels)
  for (const { number, mask } of [...objects].sort((one, other) => other.area - one.area)) {
    const inside = mask()
    for (let i = 0; i < pixels; i++) if (inside[i]) labels[i] = number
  }
  return labels
}
