// Reads the pages of a TIFF: through geotiff, which is loaded when the first is opened.

import { words } from '../shared/words.js'

/** @typedef {import('geotiff').GeoTIFFImage} Page */

/** PhotometricInterpretation (TIFF 6.0, section 8) of what is not shades of gray. */
const COLOURS = { rgb: 2, palette: 3, cmyk: 5, yCbCr: 6, cieLab: 8 }
/** A bit of NewSubfileType: the page is another one, made smaller. */
const REDUCED = 1

/** @type {Promise<typeof import('geotiff')> | undefined} */
let library

/** @returns {Promise<typeof import('geotiff')>} */
async function geotiff() {
  const address = '/geotiff/geotiff.js' // no module: it sets a global name
  library ??= import(address).then(() => /** @type {any} */ (globalThis).GeoTIFF)
  return library
}

/** @param {File} file */
export const isTiff = ({ name, type }) => type === 'image/tiff' || /\.tiff?$/i.test(name)

/**
 * The pages of a file, without those that are smaller copies of others.
 *
 * @param {File} file
 * @returns {Promise<Page[]>}
 * @throws {Error} a sentence, where there is none or one cannot be read
 */
export async function pagesOf(file) {
  if (!file.size) throw new Error(`${file.name} is empty.`)
  const { fromBlob } = await geotiff()
  /** @type {Page[]} */
  const pages = []
  try {
    const tiff = await fromBlob(file)
    const count = await tiff.getImageCount()
    for (let index = 0; index < count; index++) {
      const page = await tiff.getImage(index)
      if (!(Number(page.fileDirectory.getValue('NewSubfileType') ?? 0) & REDUCED)) pages.push(page)
    }
  } catch (error) {
    throw broken(file, error)
  }
  if (!pages.length) throw new Error(`${file.name} is a TIFF without a page.`)
  return pages
}

/** @param {File} file @param {unknown} error */
export const broken = (file, error) =>
  new Error(`${file.name} is broken, or no TIFF that can be read here: ${words(error)}`)

/** Whether a page is in colours of 8 bits, which are shown as they are. @param {Page} page */
const hasColours = (page) =>
  Object.values(COLOURS).includes(photometric(page)) && page.getBitsPerSample() <= 8

/** @param {Page} page */
const photometric = (page) =>
  Number(page.fileDirectory.getValue('PhotometricInterpretation') ?? 1)

/** @param {Page} page */
const isByteWide = (page) => page.getBitsPerSample() === 8 && page.getSampleFormat() === 1

/**
 * A page's samples.
 *
 * @param {Page} page
 * @returns {Promise<{ planes: ArrayLike<number>[], scaled: boolean, inverted: boolean }>} one plane,
 *   or those of red, green and blue; `scaled` where 8 bits do not say what they look like
 */
export async function samplesOf(page) {
  if (hasColours(page)) {
    const planes = /** @type {any} */ (await page.readRGB({ interleave: false }))
    return { planes: [planes[0], planes[1], planes[2]], scaled: false, inverted: false }
  }
  const isRgb = photometric(page) === COLOURS.rgb && page.getSamplesPerPixel() >= 3
  const samples = isRgb ? [0, 1, 2] : [0]
  const planes = /** @type {any} */ (await page.readRasters({ samples, interleave: false }))
  const inverted = photometric(page) === 0
  return { planes: [...planes], scaled: !isByteWide(page), inverted }
}
