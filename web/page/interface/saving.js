// The panel's buttons for saving a mask, labels or annotations.

import { addFrame, addImage, Coco, grayPng } from '../image/export.js'
import { LabelStack } from '../image/label-stack.js'
import { labelsOf, regionsOf } from '../image/layers.js'
import { ui } from './elements.js'
import { complain, say, settle, words } from './messages.js'

/** @typedef {import('../page.js').Page} Page */

/** @param {Page} page */
export function offerSaves(page) {
  ui.save.onclick = () => void save(page, () => saveMask(page))
  ui.saveLabels.onclick = () => void save(page, () => page.work.saved(() => saveLabels(page)))
  ui.saveCoco.onclick = () => void save(page, () => page.work.saved(() => saveCoco(page)))
}

/** @param {Page} page @param {() => Promise<string>} work returns the name of the file */
async function save(page, work) {
  settle('work')
  await page.decoding.run() // the last click may not have its mask yet
  try {
    say(`Saved ${await work()}.`)
  } catch (error) {
    complain('work', words(error))
  }
}

/** The open image. @param {Page} page */
function opened({ image: { current, place } }) {
  if (!current || !place) throw new Error('No image is open.')
  return current
}

/** The current object at the image's own size: white on black. @param {Page} page */
async function saveMask(page) {
  const image = opened(page)
  const { current, frame } = page.prompting.objects
  const object = page.display.shownMasks.find(({ number }) => number === current)
  if (!object) throw new Error('There is no mask yet.')
  const name = page.image.isSequence ? `${image.name}-${frame + 1}` : image.name
  const labels = labelsOf([{ ...object, number: 0xff }], image)
  return download(await grayPng(labels, image), `${name}-mask.png`)
}

/**
 * All objects at the image's own size: each pixel has its object's number as its value. The labels
 * of several frames are the pages of a TIFF.
 *
 * @param {Page} page
 */
async function saveLabels(page) {
  const image = opened(page)
  if (!page.image.isSequence) {
    const labels = labelsOf(page.display.shownMasks, image)
    return download(await grayPng(labels, image), `${image.name}-labels.png`)
  }
  const stack = new LabelStack(image.count, image.width, image.height)
  for await (const { shown } of page.sequence.frames()) stack.add(labelsOf(shown, image))
  return download(stack.file, `${image.name}-labels.tif`)
}

/** All objects in COCO's format; overlapping objects are whole. @param {Page} page */
async function saveCoco(page) {
  const image = opened(page)
  const data = new Coco(image, ui.runs.checked)
  if (page.image.isSequence) {
    for await (const { frame, shown } of page.sequence.frames()) {
      addFrame(data, image.fileOf(frame), regionsOf(shown, image))
    }
  } else addImage(data, image.file, regionsOf(page.display.shownMasks, image))
  const text = JSON.stringify(data)
  return download(new Blob([text], { type: 'application/json' }), `${image.name}-coco.json`)
}

/** @param {Blob} blob @param {string} name @returns {string} the name */
function download(blob, name) {
  const link = document.createElement('a')
  link.href = URL.createObjectURL(blob)
  link.download = name
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000)
  return name
}
