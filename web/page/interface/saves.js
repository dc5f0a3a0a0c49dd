// The panel's three buttons that save what is shown.

import { labelsOf, regionsOf } from '../image/layers.js'
import { saveCoco, saveCocoFrames, saveLabels, saveLabelStack, saveMask } from '../image/saving.js'
import { ui } from './elements.js'
import { complain, say, settle, words } from './messages.js'

/** @typedef {import('../page.js').Page} Page */

/** @param {Page} page */
export function offerSaves(page) {
  ui.save.onclick = () => void save(() => saveShownMask(page))
  ui.saveLabels.onclick = () => void save(() => saveAllLabels(page))
  ui.saveCoco.onclick = () => void save(() => saveAllCoco(page))
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
async function saveShownMask(page) {
  const { image, place } = opened(page)
  const { current, frame } = page.prompting.objects
  const object = page.display.shownMasks.find(({ number }) => number === current)
  if (!object) throw new Error('There is no mask yet.')
  return saveMask(object, place, page.image.isSequence ? `${image.name}-${frame + 1}` : image.name)
}

/**
 * All objects at the image's own size: each pixel as bright as its object's number.
 *
 * @param {Page} page
 */
async function saveAllLabels(page) {
  const { image, place } = opened(page)
  if (page.image.isSequence) return saveLabelStack(page.sequence.frames(), image)
  const labels = page.everything.shown
    ? (await page.everything.objects(place)).labels
    : labelsOf(page.display.shownMasks, place)
  return saveLabels(labels, place, image.name)
}

/** All objects as COCO has them; those that overlap are whole. @param {Page} page */
async function saveAllCoco(page) {
  const { image, place } = opened(page)
  if (page.image.isSequence) return saveCocoFrames(page.sequence.frames(), image)
  const { shown } = page.everything
  if (!shown) return saveCoco(regionsOf(page.display.shownMasks, place), place, image)
  const { labels } = await page.everything.objects(place)
  const regions = shown.middles.map((_, index) => {
    return { number: index + 1, category: 'object', values: labels, inside: index + 1 }
  })
  return saveCoco(regions, place, image)
}
