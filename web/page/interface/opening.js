// Opens saved masks as objects of the open image.

import { openTiff } from '../frames/tiff.js'
import { fromCoco, fromLabels, fromPng, sameSize } from '../image/opened.js'
import { ui } from './elements.js'
import { complain, hideProgress, say, settle, showProgress, words } from './messages.js'

/** @typedef {import('../image/opened.js').Frame} Frame */
/** @typedef {import('../image/view.js').Size} Size */
/** @typedef {import('../page.js').Page} Page */

/** @param {Page} page */
export function offerOpening(page) {
  ui.openMasks.onchange = async () => {
    const [file] = ui.openMasks.files ?? []
    settle('work')
    try {
      if (file) say(await open(file, page))
    } catch (error) {
      complain('work', `${file.name} cannot be opened as masks. ${words(error)}`)
    }
    hideProgress()
    ui.openMasks.value = '' // so that the same file can be opened again
  }
}

/** @param {File} file @param {Page} page @returns {Promise<string>} a sentence for the status */
async function open(file, page) {
  const { image, prompting, sequence, work } = page
  const { current } = image
  if (!current || !page.canPrompt) throw new Error('First open the image that the masks belong to.')
  const { isUnsaved } = work
  const { frames, names } = await read(file, current)
  if (image.current !== current) return 'Another image was opened meanwhile.'
  const numbers = new Set([...frames.values()].flatMap((frame) => [...frame.keys()]))
  const further = [...numbers].sort((one, other) => one - other).map((number) => {
    const pixels = image.isSequence ? undefined : frames.get(0)?.get(number)
    return { number, name: names.get(number), step: pixels ? { pixels } : null }
  })
  const { ids } = prompting.objects
  prompting.join(prompting.objects, further)
  if (image.isSequence) {
    const idOf = new Map(further.map(({ number }, index) => [number, ids + index + 1]))
    for (const [frame, objects] of frames) {
      const masks = [...objects].map(([number, pixels]) => {
        return { id: Number(idOf.get(number)), pixels }
      })
      await sequence.masks.add(frame, masks)
    }
    await sequence.reload()
  }
  if (!isUnsaved) work.settle() // all objects are in that file
  const count = numbers.size === 1 ? 'One object' : `${numbers.size || 'No'} objects`
  return `${count} opened from ${file.name}.`
}

/**
 * @param {File} file
 * @param {import('../frames/sequence.js').Sequence} image
 * @returns {Promise<{ frames: Map<number, Frame>, names: Map<number, string> }>}
 */
async function read(file, image) {
  if (/\.json$/i.test(file.name)) return fromCoco(JSON.parse(await file.text()), image, fill)
  const frames = new Map()
  const pictures = /\.png$/i.test(file.name) ? [await fromPng(await file.arrayBuffer())] : tiff(file, image.count)
  for await (const { labels, ...size } of pictures) {
    showProgress('Opening', frames.size, image.count, 'frames')
    sameSize(size, image)
    frames.set(frames.size, fromLabels(labels, image))
  }
  if (frames.size !== image.count) throw differs(frames.size, image.count)
  return { frames, names: new Map() }
}

/** @param {number} pages @param {number} frames */
const differs = (pages, frames) =>
  new Error(`Expected ${frames} pages, one for each frame, but the file has ${pages}.`)

/** @param {File} file @param {number} count @returns {AsyncGenerator<Size & { labels: ArrayLike<number> }>} */
async function* tiff(file, count) {
  const { frames, slices, read, width, height, isColored } = await openTiff(file)
  if (isColored) {
    throw new Error('Expected labels in one channel, but the file has colours: save it in gray.')
  }
  if (frames * slices !== count) throw differs(frames * slices, count)
  for (let page = 0; page < count; page++) {
    const [{ planes }] = await read(Math.floor(page / slices), page % slices, [0])
    yield { labels: planes[0], width, height }
  }
}

/** @param {number[][]} polygons @param {import('../image/masks.js').Region} region */
function fill(polygons, { left, top, right, bottom }) {
  const canvas = new OffscreenCanvas(right - left, bottom - top)
  const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext('2d'))
  context.translate(-left, -top)
  for (const polygon of polygons) {
    context.beginPath()
    for (let i = 0; i < polygon.length; i += 2) context.lineTo(polygon[i], polygon[i + 1])
    context.fill('evenodd')
  }
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height)
  return Uint8Array.from({ length: data.length / 4 }, (_, i) => data[4 * i + 3] >> 7)
}
