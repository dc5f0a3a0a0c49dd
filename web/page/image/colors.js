// The colours of objects.

/**
 * Paul Tol's vibrant palette without its grey (https://sronpersonalpages.nl/~pault/): people with
 * any kind of colour vision can tell its colours apart. Magenta is first, because few images have it.
 */
export const PALETTE = ['#ee3377', '#ee7733', '#33bbee', '#009988', '#cc3311', '#0077bb']

/**
 * The colour of a numbered object: first the palette, then hues far from their neighbours'.
 *
 * @param {number} number from 1
 * @returns {string}
 */
export function colorOf(number) {
  if (number <= PALETTE.length) return PALETTE[number - 1]
  const hue = (340 + (number - 1) * 137.5) % 360 // degrees; the golden angle
  const channel = (/** @type {number} */ turn) => {
    const at = Math.abs(((hue + turn) % 360) - 180) / 60
    return Math.round(255 * (0.12 + 0.88 * Math.min(Math.max(at - 1, 0), 1)))
  }
  return `#${[0, 240, 120].map((turn) => channel(turn).toString(16).padStart(2, '0')).join('')}`
}

/**
 * The colour for a further object: the first unused one.
 *
 * @param {readonly string[]} used
 * @returns {string}
 */
export function unusedColor(used) {
  for (let number = 1; ; number++) {
    const color = colorOf(number)
    if (!used.includes(color) || number > used.length) return color
  }
}
