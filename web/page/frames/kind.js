// Detects a file's kind by its first bytes, because names and types mislead. No DOM.

/**
 * @typedef {object} Content
 * @property {'tiff' | 'deep' | 'animation' | 'video' | 'image'} kind `deep`: a PNG with 16 bits
 * @property {string} type the type for the browser's decoder; empty if the browser must detect it
 * @property {import('../image/view.js').Size} [size] if the first bytes have it
 */

/** How many bytes to read: a PNG's animation chunk can follow a large colour profile. */
const HEAD = 2 ** 20

/** @type {[RegExp, Content['kind'], string][]} */
const READ = [
  [/^(II[*+]\0|MM\0[*+])/, 'tiff', 'image/tiff'], // LSM, STK, SVS, NDPI and BTF too
  [/^\x89PNG\r\n\x1a\n/, 'image', 'image/png'],
  [/^\xff\xd8\xff/, 'image', 'image/jpeg'],
  [/^GIF8/, 'animation', 'image/gif'], // of one frame too
  [/^RIFF[^]{4}WEBP/, 'image', 'image/webp'],
  [/^[^]{4}ftypavis/, 'animation', 'image/avif'],
  [/^[^]{4}ftyp(avif|mif1|msf1|hei|hev)/, 'image', ''],
  [/^BM/, 'image', 'image/bmp'],
  [/^\s*<(\?xml|!--|!DOCTYPE svg|svg)/i, 'image', 'image/svg+xml'],
  [/^\x1aE\xdf\xa3/, 'video', 'video/webm'], // Matroska too
  [/^[^]{4}(ftyp|moov|mdat|wide|free|skip)/, 'video', 'video/mp4'], // QuickTime too
  [/^OggS/, 'video', 'video/ogg'],
  [/^G[^]{187}G/, 'video', 'video/mp2t'],
]
const AS_TIFF = 'Open it in Fiji (ImageJ) and save it as TIFF.'
/** @type {[RegExp, string, string][]} */
const REFUSED = [
  [/^ZISRAWFILE/, 'a Zeiss CZI', AS_TIFF],
  [/^\xda\xce\xbe\n/, 'a Nikon ND2', AS_TIFF],
  [/^p\0\0\0[^]{4}\*/, 'a Leica LIF', AS_TIFF],
  [/^\xd0\xcf\x11\xe0/, 'an OLE file, as Olympus OIB and Zeiss ZVI are', AS_TIFF],
  [/^\x89HDF/, 'an HDF5 file, as Imaris and BigDataViewer write', AS_TIFF],
  [/^[^]{128}DICM/, 'a DICOM file', AS_TIFF],
  [/^SIMPLE {2}=/, 'a FITS file', AS_TIFF],
  [/^\0\0\0\x0cjP/, 'a JPEG 2000', AS_TIFF],
  [/^RIFF[^]{4}AVI /, 'an AVI', AS_TIFF],
  [/^(0&\xb2u|\0\0\x01\xba|FLV\x01)/, 'a video in a format that browsers lack', AS_TIFF],
  [/^\x93NUMPY/, 'a NumPy array', 'Write it with tifffile.imwrite.'],
  [/^(PK\x03\x04|\x1f\x8b|7z\xbc\xaf)/, 'an archive', 'Unpack it, and open the files in it.'],
]

/**
 * @param {File} file
 * @returns {Promise<Content>}
 * @throws {Error} with a sentence, if the file is empty or of an unsupported kind
 */
export async function contentOf(file) {
  if (!file.size) throw new Error(`${file.name} is empty.`)
  const bytes = new Uint8Array(await file.slice(0, HEAD).arrayBuffer())
  const start = String.fromCharCode(...bytes.subarray(0, 256))
  const refused = REFUSED.find(([magic]) => magic.test(start))
  if (refused) throw new Error(`${file.name} is ${refused[1]}, which this page cannot read. ${refused[2]}`)
  const [, kind, type] = READ.find(([magic]) => magic.test(start)) ?? [null, 'image', '']
  if (type === 'image/png') return png(file, bytes)
  // VP8X is the header of an extended WebP; a flag after it marks an animation.
  if (type === 'image/webp' && start.startsWith('VP8X', 12) && bytes[20] & 2) {
    return { kind: 'animation', type }
  }
  return { kind: /** @type {Content['kind']} */ (kind), type }
}

/** @param {File} file @param {Uint8Array} bytes @returns {Content} */
function png(file, bytes) {
  const view = new DataView(bytes.buffer)
  const isDeep = bytes[24] === 16
  const size = bytes.length < 25 ? undefined : { width: view.getUint32(16), height: view.getUint32(20) }
  const [before] = new TextDecoder('latin1').decode(bytes).split('IDAT', 1)
  const moves = before.includes('acTL')
  if (moves && isDeep) {
    const advice = 'Save its frames as a TIFF, or with 8 bits.'
    throw new Error(`${file.name} is animated and has 16 bits, which this page cannot read. ${advice}`)
  }
  return { kind: moves ? 'animation' : isDeep ? 'deep' : 'image', type: 'image/png', size }
}
