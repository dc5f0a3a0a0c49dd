// The panel's three buttons that save what is shown: a mask, labels, annotations.

import { addFrame, Coco, coco, grayPixels } from '../image/export.js'
import { LabelStack } from '../image/label-stack.js'
import { labelsOf, regionsOf } from '../image/layers.js'
import { ui } from './elements.js'
import { complain, say, settle, words } from './messages.js'

/** @typedef {import('../image/view.js').Size} Size */
/** @typedef {import('../page.js').Page} Page */

/** @param {Page} page */
export function offerSaves(page) {
  ui.save.onclick = () => void save(() => saveMask(page))
  ui.saveLabels.onclick = () => void save(() => saveLabels(page))
  ui.saveCoco.onclick = () => void save(() => saveCoco(page))
}

/** @param {() => Promise<string>} work it returns the name of the file */
async function save(work) {
  settle('work')
  try {
    say(`Saved ${await work()}.`)
  } catch (error) {
    complain('work', words(error))
  }
}

/** What is open. @param {Page} page */
function opened({ image: { current, place } }) {
  if (!current || !place) throw new Error('No image is open.')
  return { image: current, place }
}

/** The current object at the image's own size: white on black. @param {Page} page */
async function saveMask(page) {
  const { image, place } = opened(page)
  const { current, frame } = page.prompting.objects
  const object = page.display.shownMasks.find(({ number }) => number === current)
  if (!object) throw new Error('There is no mask yet.')
  const name = page.image.isSequence ? `${image.name}-${frame + 1}` : image.name
  const labels = labelsOf([{ ...object, number: 1 }], place)
  return downloadPicture(grayPixels(labels, 0xff), place, `${name}-mask.png`)
}

/**
 * All objects at the image's own size: each pixel as bright as its object's number. The labels of
 * several frames are the pages of a TIFF.
 *
 * @param {Page} page
 */
async function saveLabels(page) {
  const { image, place } = opened(page)
  if (page.image.isSequence) {
    const stack = new LabelStack(image.count, image.width, image.height)
    for await (const { shown } of page.sequence.frames()) stack.add(labelsOf(shown, image))
    return download(stack.file, `${image.name}-labels.tif`)
  }
  const labels = page.everything.shown
    ? (await page.everything.objects(place)).labels
    : labelsOf(page.display.shownMasks, place)
  return downloadPicture(grayPixels(labels), place, `${image.name}-labels.png`)
}

/** All objects as COCO has them; those that overlap are whole. @param {Page} page */
async function saveCoco(page) {
  const { image, place } = opened(page)
  const { width, height } = image
  const name = `${image.name}-coco.json`
  if (page.image.isSequence) {
    const data = new Coco(width, height)
    for await (const { frame, shown } of page.sequence.frames()) {
      addFrame(data, image.fileOf(frame), regionsOf(shown, image))
    }
    return downloadJson(data, name)
  }
  const { everything, display } = page
  const regions = everything.shown
    ? await everything.regions(place)
    : regionsOf(display.shownMasks, place)
  return downloadJson(coco(image.file, width, height, regions), name)
}

/**
 * @param {Uint8ClampedArray<ArrayBuffer>} rgba
 * @param {Size} size
 * @param {string} name
 */
async function downloadPicture(rgba, { width, height }, name) {
  const canvas = new OffscreenCanvas(width, height)
  canvas.getContext('2d')?.putImageData(new ImageData(rgba, width, height), 0, 0)
  return download(await canvas.convertToBlob({ type: 'image/png' }), name)
}

/** @param {unknown} value @param {string} name */
const downloadJson = (value, name) =>
  download(new Blob([JSON.stringify(value)], { type: 'application/json' }), name)

/** @param {Blob} blob @param {string} name @returns {string} the name */
function download(blob, name) {
  const link = document.createElement('a')
  link.href = URL.createObjectURL(blob)
  link.download = name
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000)
  return name
}
