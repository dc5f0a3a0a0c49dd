// What a file is, by its first bytes.
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { contentOf } from '../page/frames/kind.js'

/** @param {string} start @param {string} [name] a misleading one */
const kindOf = async (start, name = 'cells.tif') =>
  (await contentOf(new File([Uint8Array.from(start, (one) => one.charCodeAt(0))], name))).kind

/** The first bytes of a PNG. @param {number} bits @param {string} [chunk] that comes before the pixels */
const png = (bits, chunk = '') =>
  `\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x01\0\0\0\x02\0${String.fromCharCode(bits)}\0\0\0\0....` +
  `${chunk}\0\0\0\0IDATacTL`

test('a TIFF is recognized in either byte order, and as BigTIFF', async () => {
  for (const start of ['II*\0', 'MM\0*', 'II+\0', 'MM\0+']) {
    assert.equal(await kindOf(`${start}........`, 'a.png'), 'tiff')
  }
})

test('a PNG is deep if it has 16 bits, and animated if a chunk before its pixels says so', async () => {
  assert.equal(await kindOf(png(8)), 'image')
  assert.equal(await kindOf(png(16)), 'deep')
  assert.equal(await kindOf(png(8, '\0\0\0\bacTL........')), 'animation')
  await assert.rejects(kindOf(png(16, 'acTL')), /is animated and has 16 bits.*Save its frames/)
})

test('the size of a PNG is read from its header', async () => {
  const file = new File([Uint8Array.from(png(8), (one) => one.charCodeAt(0))], 'a')
  assert.deepEqual((await contentOf(file)).size, { width: 256, height: 512 })
})

test('a WebP is animated if a flag in its header says so', async () => {
  assert.equal(await kindOf('RIFF....WEBPVP8X....\x02...'), 'animation')
  assert.equal(await kindOf('RIFF....WEBPVP8X....\x10...'), 'image')
  assert.equal(await kindOf('RIFF....WEBPVP8 ....\x02...'), 'image')
})

test('video and image containers with a common beginning are told apart', async () => {
  assert.equal(await kindOf('\0\0\0 ftypisom'), 'video')
  assert.equal(await kindOf('\0\0\0 ftypqt  '), 'video')
  assert.equal(await kindOf('\0\0\0 ftypavif'), 'image')
  assert.equal(await kindOf('\0\0\0 ftypavis'), 'animation')
  assert.equal(await kindOf('\x1aE\xdf\xa3....'), 'video')
})

test('files of an unknown kind are left to the browser', async () => {
  assert.equal(await kindOf('something'), 'image')
})

test('an unsupported format is refused by name, with advice', async () => {
  await assert.rejects(kindOf('ZISRAWFILE'), {
    message: 'cells.tif is a Zeiss CZI, which this page cannot read. Open it in Fiji (ImageJ) and save it as TIFF.',
  })
  await assert.rejects(kindOf('\xda\xce\xbe\n...'), /a Nikon ND2/)
  await assert.rejects(kindOf('RIFF....AVI LIST'), /an AVI/)
  await assert.rejects(kindOf(`${'\0'.repeat(128)}DICM`), /a DICOM file/)
  await assert.rejects(kindOf(''), { message: 'cells.tif is empty.' })
})
