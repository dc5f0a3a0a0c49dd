// Writes label images as one TIFF with several pages, 16 bits for each pixel, uncompressed. No DOM.
//
// The format is TIFF 6.0 (Adobe, 1992). No library does this: geotiff writes only one page, utif only
// 8 bits.

const HEADER = 8
/** Tag, type (3: 16 bits, 4: 32 bits) and value of each entry. */
const ENTRIES = 12
const DIRECTORY = 2 + 12 * ENTRIES + 4
/** Offsets have 32 bits. */
const MOST = 2 ** 32

/** The pages in order, each as its own blob: a browser can keep blobs out of memory. */
export class LabelStack {
  /**
   * @param {number} count of pages
   * @param {number} width
   * @param {number} height
   * @throws {RangeError} when the pages exceed the size of a TIFF
   */
  constructor(count, width, height) {
    this.count = count
    this.width = width
    this.height = height
    this.bytes = 2 * width * height
    const size = HEADER + count * (DIRECTORY + this.bytes)
    if (size >= MOST) {
      throw new RangeError(
        `${count} pages of ${width} × ${height} pixels need more than the 4 GiB that a TIFF can ` +
          'have. Save COCO (JSON) instead.',
      )
    }
    const header = new DataView(new ArrayBuffer(HEADER))
    header.setUint16(0, 0x4949) // "II": little-endian
    header.setUint16(2, 42, true)
    header.setUint32(4, HEADER, true)
    /** @type {Blob[]} */
    this.parts = [new Blob([header])]
    this.pages = 0
  }

  /** @param {ArrayLike<number>} labels of a page, row by row */
  add(labels) {
    const at = HEADER + this.pages * (DIRECTORY + this.bytes)
    this.pages++
    const page = new DataView(new ArrayBuffer(DIRECTORY + this.bytes))
    page.setUint16(0, ENTRIES, true)
    const entries = [
      [254, 4, 2], // NewSubfileType: one page of several
      [256, 4, this.width],
      [257, 4, this.height],
      [258, 3, 16], // BitsPerSample
      [259, 3, 1], // Compression: none
      [262, 3, 1], // PhotometricInterpretation: 0 is black
      [273, 4, at + DIRECTORY], // StripOffsets
      [277, 3, 1], // SamplesPerPixel
      [278, 4, this.height], // RowsPerStrip
      [279, 4, this.bytes], // StripByteCounts
      [284, 3, 1], // PlanarConfiguration
      [339, 3, 1], // SampleFormat: unsigned
    ]
    for (const [index, [tag, type, value]] of entries.entries()) {
      const entry = 2 + 12 * index
      page.setUint16(entry, tag, true)
      page.setUint16(entry + 2, type, true)
      page.setUint32(entry + 4, 1, true) // the number of values
      if (type === 3) page.setUint16(entry + 8, value, true)
      else page.setUint32(entry + 8, value, true)
    }
    const next = this.pages < this.count ? at + DIRECTORY + this.bytes : 0
    page.setUint32(DIRECTORY - 4, next, true)
    for (let i = 0, to = DIRECTORY; i < labels.length; i++, to += 2) {
      page.setUint16(to, labels[i], true)
    }
    this.parts.push(new Blob([page]))
  }

  /** @returns {Blob} */
  get file() {
    return new Blob(this.parts, { type: 'image/tiff' })
  }
}
