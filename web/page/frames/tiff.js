// Reads the stacks and images of a TIFF by frame, slice and channel. No DOM.

import { words } from '../shared/words.js'
import { imagesOf, isOme, layoutOf } from './axes.js'
import { field, imagesBehind, mend, pagesOf, sumRows } from './geotiff.js'
import { BROWSER_JPEG, BROWSER_RGB } from './jpeg.js'

/** @typedef {import('./geotiff.js').Page} Page */
/**
 * The samples of a channel.
 *
 * @typedef {object} Samples
 * @property {ArrayLike<number>[]} planes one, or those of red, green and blue
 * @property {boolean} scaled whether they must be scaled to 8 bits to be shown
 * @property {boolean} inverted whether the least value is white
 */
/**
 * @typedef {object} Stack
 * @property {string} file its name
 * @property {number} width
 * @property {number} height
 * @property {number} frames
 * @property {number} slices of each frame
 * @property {string[]} channels their names
 * @property {boolean} isColored whether a channel has its own colours
 * @property {string[]} notes sentences about what is not shown
 * @property {(frame: number, slice: number, channels: number[]) => Promise<Samples[]>} read
 */

/** PhotometricInterpretation (TIFF 6.0, section 8) of colours. */
const COLOURS = { rgb: 2, palette: 3, cmyk: 5, yCbCr: 6, cieLab: 8 }
/** A bit of NewSubfileType: the page is a smaller copy of another. */
const REDUCED = 1
const JPEG = 7
/** Compressions that geotiff cannot decode. @type {[string, ...number[]][]} */
const COMPRESSIONS = [
  ['CCITT (fax)', 2, 3, 4],
  ['JPEG of the old style', 6],
  ['JBIG', 9, 10, 34661],
  ['JPEG XR', 22610, 34934],
  ['JPEG 2000', 33003, 33004, 33005, 34712],
  ['SGI LogLuv', 34676, 34677],
  ['LZMA', 34925],
  ['PNG', 34933],
  ['JPEG XL', 50002, 52546],
]
/** Compressions that can be decoded. */
const DECODED = [1, 5, JPEG, 8, 32773, 32946, 34887, 50000, 50001, BROWSER_RGB, BROWSER_JPEG]
const WHOLE = Array.from({ length: 16 }, (_, i) => i + 1)
/** The bits that samples can have, by SampleFormat. @type {number[][]} */
const BITS = [[], [...WHOLE, 32], [8, 16, 32], [16, 32, 64]]
const FORMATS = ['', 'unsigned', 'signed', 'floating-point', '', 'complex integer', 'complex']

/**
 * @param {File} file that begins like a TIFF
 * @returns {Promise<Stack>}
 * @throws {Error} with a sentence, if the file cannot be read
 */
export async function openTiff(file) {
  try {
    return await stackOf(file)
  } catch (error) {
    throw error instanceof Unreadable ? error : broken(file, error)
  }
}

class Unreadable extends Error {}

/** @param {File} file @param {unknown} error */
const broken = (file, error) =>
  new Error(`${file.name} is broken, or not a TIFF that this page can read: ${words(error)}`)

/** @param {File} file @returns {Promise<Stack>} */
async function stackOf(file) {
  let pages = await pagesOf(file)
  const first = pages.find((page) => !isReduced(page))
  if (!first) throw new Unreadable(`${file.name} is a TIFF without pages.`)
  const [width, height] = [first.getWidth(), first.getHeight()]
  const description = String(field(first, 'ImageDescription') ?? '').replace(/\0+$/, '')
  if (pages.length === 1) pages = withImagesBehind(first, description, file)
  const full = pages.filter((page) => !isReduced(page))
  const shown = full.filter((page) => page.getWidth() === width && page.getHeight() === height)
  const notes = []
  const others = full.length - shown.length
  if (others) {
    const are = others === 1 ? 'One page of another size is' : `${others} pages of other sizes are`
    notes.push(`${are} not shown: the first is ${width} × ${height} pixels.`)
  }
  const differences = new Set(shown.filter(mend))
  for (const page of shown) {
    checkReadable(page, file)
    const isMapped = differences.has(page) && isConverted(page)
    if (isMapped) throw unreadable(file, 'has a colour map and stores differences')
  }
  const readable = new Set(shown)

  const isColored = shown.some(hasColours)
  const inPage = isColored ? 1 : samplesShown(first)
  if (photometricOf(first) === COLOURS.rgb && isColored && samplesShown(first) > 3) {
    notes.push(`Only red, green and blue are shown, of ${samplesShown(first)} samples a pixel.`)
  }
  const counted = isOme(description) ? pages : shown // OME counts all pages
  const layout = layoutOf({
    description,
    count: counted.length,
    file: file.name,
    axes: lsmAxes(first),
  })
  return {
    file: file.name,
    width,
    height,
    frames: layout.frames,
    slices: layout.slices,
    channels: inPage === 1 ? layout.channels : numbered(layout.channels.length * inPage),
    isColored,
    notes: [...layout.notes, ...notes],
    async read(frame, slice, channels) {
      /** @type {Map<Page, Promise<Samples[]>>} */
      const read = new Map()
      const samples = channels.map(async (channel) => {
        const page = counted[layout.pageOf(frame, slice, Math.floor(channel / inPage))]
        if (!readable.has(page)) throw new Error('a plane is on a page of another size.')
        const all = read.get(page) ?? samplesOf(page, inPage, differences.has(page))
        read.set(page, all)
        return (await all)[channel % inPage]
      })
      return Promise.all(samples).catch((error) => {
        throw broken(file, error)
      })
    },
  }
}

/** Names of channels. @param {number} count */
const numbered = (count) => Array.from({ length: count }, (_, i) => `Channel ${i + 1}`)

/** @param {Page} page */
const isReduced = (page) => Boolean(field(page, 'NewSubfileType') & REDUCED)

/** @param {Page} page */
const compressionOf = (page) => field(page, 'Compression') ?? 1

/** @param {Page} page */
const photometricOf = (page) => field(page, 'PhotometricInterpretation') ?? 1

/** Zeiss' description of a stack, if any. @param {Page} page @returns {Uint8Array | undefined} */
const lsmOf = (page) => field(page, 'CZ_LSMINFO')

/** @param {Page} page @returns {import('./axes.js').Axis[] | null} */
function lsmAxes(page) {
  const lsm = lsmOf(page)
  if (!lsm) return null
  const size = (/** @type {number} */ at) => new DataView(lsm.buffer).getInt32(at, true)
  return [{ name: 'T', size: size(24) }, { name: 'Z', size: size(16) }]
}

/**
 * Whether a page is in colour. The three samples of a Zeiss file are channels.
 *
 * @param {Page} page
 */
const hasColours = (page) => {
  const isRgb = photometricOf(page) === COLOURS.rgb
  return !lsmOf(page) && (isRgb ? page.getSamplesPerPixel() >= 3 : isConverted(page))
}

/** Whether a page's samples are converted to red, green and blue. @param {Page} page */
const isConverted = (page) => {
  const photometric = photometricOf(page)
  if (page.getBitsPerSample() > 8) return photometric === COLOURS.palette
  return Object.values(COLOURS).includes(photometric)
}

/** The number of a page's samples that are channels; transparency is not one. @param {Page} page */
function samplesShown(page) {
  const extra = Array.from(field(page, 'ExtraSamples') ?? [])
  return page.getSamplesPerPixel() - extra.filter((kind) => kind === 1 || kind === 2).length
}

/**
 * @param {Page} page
 * @param {number} channels the number of its samples that are channels
 * @param {boolean} areDifferences
 * @returns {Promise<Samples[]>}
 */
async function samplesOf(page, channels, areDifferences) {
  const isColored = hasColours(page)
  if (isColored && isConverted(page)) {
    const planes = /** @type {any} */ (await page.readRGB({ interleave: false }))
    return [{ planes: [...planes], scaled: false, inverted: false }]
  }
  const samples = Array.from({ length: isColored ? 3 : channels }, (_, i) => i)
  const planes = /** @type {any[]} */ (await page.readRasters({ samples, interleave: false }))
  if (areDifferences) planes.forEach((plane) => sumRows(plane, page))
  const scaled = page.getBitsPerSample() !== 8 || page.getSampleFormat() !== 1
  if (isColored) return [{ planes: [...planes], scaled, inverted: false }]
  const inverted = photometricOf(page) === 0
  return [...planes].map((plane) => ({ planes: [plane], scaled, inverted }))
}

/**
 * The first page, and images that follow it without their own pages, as ImageJ, MetaMorph and tifffile
 * write them.
 *
 * @param {Page} first
 * @param {string} description
 * @param {File} file
 */
function withImagesBehind(first, description, file) {
  const samples = first.getWidth() * first.getHeight() * first.getSamplesPerPixel()
  const metaMorph = field(first, 33629)?.length / 2 // UIC2Tag: a fraction for each image
  const count = metaMorph || imagesOf(description, samples)
  const [offsets, counts] = ['StripOffsets', 'StripByteCounts'].map((tag) => field(first, tag))
  if (!(count > 1) || compressionOf(first) !== 1 || !offsets || !counts) return [first]
  const ends = Array.from(/** @type {number[]} */ (offsets), (offset, i) => offset + counts[i])
  const bytes = /** @type {number} */ (ends.at(-1)) - offsets[0]
  const areTogether = ends.slice(0, -1).every((end, i) => end === offsets[i + 1])
  if (!areTogether || bytes !== (samples * (first.getBitsPerSample() || 1)) / 8) return [first]
  const fitting = Math.floor((file.size - offsets[0]) / bytes)
  return imagesBehind(first, Math.max(1, Math.min(count, fitting)), bytes)
}

/** @param {Page} page @param {File} file @throws {Unreadable} */
function checkReadable(page, file) {
  const compression = compressionOf(page)
  const [bits, format] = [page.getBitsPerSample(), page.getSampleFormat()]
  const isDeep = bits !== 8
  if (!DECODED.includes(compression)) {
    const [name] = COMPRESSIONS.find(([, ...numbers]) => numbers.includes(compression)) ?? []
    throw unreadable(file, `is compressed with ${name ?? `method ${compression}`}`)
  }
  if (!BITS[format]?.includes(bits)) {
    const type = FORMATS[format] || 'unknown'
    const to = format > 4 ? ['abs(', ").astype('float32')"] : ['', ".astype('float32')"]
    throw unreadable(file, `has ${type} numbers of ${bits} bits`, to)
  }
  const depths = new Set(field(page, 'BitsPerSample'))
  if (depths.size > 1) throw unreadable(file, 'has samples of different bit depths')
  if (field(page, 'FillOrder') === 2) throw unreadable(file, 'has its bits in reverse order')
  const predictor = field(page, 'Predictor') ?? 1
  const isSwapped = bits !== 32 || !page.littleEndian
  const isOdd = bits % 8 !== 0 || (predictor === 2 && format === 3 && isSwapped)
  if (predictor !== 1 && isOdd) throw unreadable(file, `has differences of ${bits}-bit samples`)
  if (compression === JPEG && isDeep) throw unreadable(file, `has JPEGs of ${bits} bits`)
  const isSubsampled = [...(field(page, 'YCbCrSubSampling') ?? [2, 2])].some((factor) => factor > 1)
  if (photometricOf(page) === COLOURS.yCbCr && compression !== JPEG && isSubsampled) {
    throw unreadable(file, 'has subsampled colours (YCbCr)')
  }
}

/** @param {File} file @param {string} what @param {string[]} [change] around the samples */
function unreadable({ name }, what, [before, after] = ['', '']) {
  const quoted = name.replaceAll("'", "\\'")
  const plain = `${quoted.replace(/\.[^.]*$/, '')}-plain.tif`
  const code =
    `import tifffile; s = tifffile.TiffFile('${quoted}').series[0]; ` +
    `tifffile.imwrite('${plain}', ${before}s.asarray()${after}, metadata={'axes': s.axes})`
  return new Unreadable(
    `${name} ${what}, which this page cannot read. Convert it with ` +
      `uv run --with tifffile --with imagecodecs python -c "${code}", or open it in Fiji and save it ` +
      'as TIFF.',
  )
}
