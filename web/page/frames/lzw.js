// Decodes TIFF's LZW (TIFF 6.0, section 13). geotiff's own decoder has no room for codes from 4093 on,
// and never ends if a file has them. No DOM.

const [CLEAR, END, CODES] = [256, 257, 4096]

/**
 * @param {ArrayBufferLike} compressed
 * @returns {ArrayBuffer}
 * @throws {Error} for an invalid code
 */
export function lzwDecoded(compressed) {
  const bytes = new Uint8Array(compressed)
  // A code stands for bytes that were written before: those of the code before it, and one more.
  const starts = new Uint32Array(CODES)
  const lengths = new Uint16Array(CODES)
  let written = new Uint8Array(Math.max(1024, 4 * bytes.length))
  let [length, next, width, before] = [0, END + 1, 9, -1]
  let [bits, held, at] = [0, 0, 0]
  for (;;) {
    while (held < width && at < bytes.length) {
      bits = ((bits << 8) | bytes[at++]) & 0xfffff
      held += 8
    }
    if (held < width) break // some writers omit the end code
    held -= width
    const code = (bits >> held) & ((1 << width) - 1)
    if (code === END) break
    if (code === CLEAR) {
      next = END + 1
      width = 9
      before = -1
      continue
    }
    if (before >= 0 && next < CODES) {
      starts[next] = before
      lengths[next++] = length - before + 1
    }
    if (code >= next) throw new Error(`its LZW data uses the code ${code} before it is defined.`)
    const count = code < CLEAR ? 1 : lengths[code]
    if (length + count > written.length) {
      const larger = new Uint8Array(2 * written.length + count)
      larger.set(written)
      written = larger
    }
    before = length
    if (code < CLEAR) written[length++] = code
    else for (let from = starts[code], i = 0; i < count; i++) written[length++] = written[from++]
    // The width grows one code early, as in the files of libtiff and all other writers.
    if (next + 1 >= 1 << width && width < 12) width++
  }
  return written.buffer.slice(0, length)
}
