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
  let [area, sumX, sumY] = [0, 0, 0]
  for (let i = 0; i < mask.length; i++) {
    if (!mask[i]) continue
    area++
    sumX += i % width
    sumY += Math.floor(i / width)
  }
  if (!area) return null
  const [x, y] = [sumX / area, sumY / area]
  let [nearest, least] = [0, Infinity]
  for (let i = 0; i < mask.length; i++) {
    if (!mask[i]) continue
    const distance = (i % width - x) ** 2 + (Math.floor(i / width) - y) ** 2
    if (distance < least) [nearest, least] = [i, distance]
  }
  const height = mask.length / width
  return { x: ((nearest % width) + 0.5) / width, y: (Math.floor(nearest / width) + 0.5) / height }
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
    mask().forEach((inside, i) => {
      if (inside) labels[i] = number
    })
  }
  return labels
}
