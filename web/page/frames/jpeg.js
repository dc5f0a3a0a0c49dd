// Decodes JPEGs within a TIFF with the browser: like libjpeg, it smooths subsampled colours, which
// geotiff's own decoder does not.

/** Unused compression numbers, for pages with JPEGs in red, green and blue, and for others. */
export const [BROWSER_RGB, BROWSER_JPEG] = [65_107, 65_108]
/** A marker: the three components are not YCbCr, which a decoder would otherwise assume. */
const ADOBE = Uint8Array.of(0xff, 0xee, 0, 14, 65, 100, 111, 98, 101, 0, 100, 0, 0, 0, 0, 0)
const START = Uint8Array.of(0xff, 0xd8)

/** @param {typeof import('geotiff')} library */
export function addJpeg({ addDecoder, BaseDecoder }) {
  for (const kind of [BROWSER_RGB, BROWSER_JPEG]) {
    const decoder = class extends BaseDecoder {
      /** @param {ArrayBufferLike} block @returns {Promise<ArrayBuffer>} */
      async decodeBlock(block) {
        const { tables, samplesPerPixel: samples = 1 } = /** @type {any} */ (this.parameters)
        const shared = tables ? new Uint8Array(tables).subarray(2, -2) : new Uint8Array()
        const colors = kind === BROWSER_RGB ? ADOBE : new Uint8Array()
        const parts = [START, colors, shared, new Uint8Array(/** @type {ArrayBuffer} */ (block), 2)]
        const type = 'image/jpeg'
        const picture = await createImageBitmap(new Blob(parts, { type }), {
          colorSpaceConversion: 'none',
        })
        const { width, height } = picture
        const context = /** @type {OffscreenCanvasRenderingContext2D} */ (
          new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true })
        )
        context.drawImage(picture, 0, 0)
        picture.close()
        const { data } = context.getImageData(0, 0, width, height)
        const values = new Uint8Array(width * height * samples)
        for (let from = 0, to = 0; to < values.length; from += 4) {
          for (let sample = 0; sample < samples; sample++) values[to++] = data[from + sample]
        }
        return values.buffer
      }
    }
    const parameters = async (/** @type {import('geotiff').ImageFileDirectory} */ directory) => ({
      tables: await directory.loadValue('JPEGTables'),
      samplesPerPixel: await directory.loadValue('SamplesPerPixel'),
      predictor: 1,
    })
    addDecoder(kind, async () => decoder, /** @type {any} */ (parameters))
  }
}

/**
 * The decoder for a page with JPEG compression; null for geotiff's own.
 *
 * @param {import('geotiff').GeoTIFFImage} page
 * @param {number} photometric
 */
export function jpegOf(page, photometric) {
  const isHere = typeof OffscreenCanvas === 'function' && page.getBitsPerSample() === 8
  const samples = page.planarConfiguration === 1 ? page.getSamplesPerPixel() : 0
  if (isHere && samples === 3 && photometric === 2) return BROWSER_RGB
  const isOther = (samples === 3 && photometric === 6) || (samples === 1 && photometric < 2)
  return isHere && isOther ? BROWSER_JPEG : null
}
