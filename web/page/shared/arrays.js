// Arrays of numbers.

/**
 * Several arrays concatenated into one.
 *
 * @param {readonly Float32Array[]} parts
 * @returns {Float32Array}
 */
export function concatenated(parts) {
  const whole = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0))
  let start = 0
  for (const part of parts) {
    whole.set(part, start)
    start += part.length
  }
  return whole
}
