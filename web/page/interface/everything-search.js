// "Everything": clicks on a grid, and the objects among their masks, shown in place of a person's.

import { ui } from './elements.js'
import { complain, hideProgress, say, settle, words } from './messages.js'

/** @typedef {import('../image/view.js').Size} Size */
/**
 * @typedef {object} Everything
 * @property {Uint16Array} labels for each pixel of what is drawn the number of its object, or 0
 * @property {Size} size of the labels
 * @property {import('../image/view.js').At[]} middles of the objects, in image parts
 * @property {number} prompts how many clicks there were
 * @property {number} milliseconds
 */

/** Longer side of the labels, in pixels. */
const VIEW = 1024

export class EverythingSearch {
  /** @type {Everything | null} */
  shown = null
  /** Stops the search that goes on. @type {AbortController | null} */
  search = null

  /** @param {import('../page.js').Page} page */
  constructor(page) {
    this.page = page
    ui.segment.onclick = () => void this.segment()
    ui.leastScore.oninput = ui.leastStability.oninput = () => void this.limit()
  }

  /** Another model or image is open. */
  abandon() {
    this.search?.abort()
    this.shown = this.search = null
  }

  /** Click on each point of a grid, and show the objects. */
  async segment() {
    const { page } = this
    const [model, place] = [page.model.current, page.image.place]
    if (!model || !place || page.isBusy) return
    const stop = (this.search = new AbortController())
    this.shown = null
    page.cursor.dropBox()
    settle('image', 'work')
    page.display.refresh()
    say('Segmenting everything.')
    /** @type {string | null} */
    let problem = null
    try {
      const args = { side: Number(ui.grid.value), place }
      const counts = await model.call('everything', args, stop.signal)
      const size = drawnSize(place)
      const objects = counts && (await this.objects(size))
      if (objects && this.search === stop) this.shown = { ...counts, ...objects, size }
    } catch (error) {
      problem = words(error)
    }
    if (this.search !== stop) return // another model or image was opened meanwhile
    this.search = null
    hideProgress()
    page.display.refresh()
    if (problem) complain('work', `The decoder failed.\n${problem}`)
    else if (!this.shown) say('Cancelled.')
  }

  /**
   * The objects within the limits that are set now.
   *
   * @param {Size} size of their labels
   * @returns {Promise<Pick<Everything, 'labels' | 'middles'>>}
   */
  async objects({ width, height }) {
    const limits = { score: Number(ui.leastScore.value), stability: Number(ui.leastStability.value) }
    const { model, image } = this.page
    return model.current?.call('objects', { limits, place: image.place, width, height })
  }

  /** Each object's pixels, as COCO needs them. @param {Size} size */
  async regions(size) {
    const { labels, middles } = await this.objects(size)
    return middles.map((_, index) => {
      return { number: index + 1, category: 'object', values: labels, inside: index + 1 }
    })
  }

  /** Choose anew among the masks of the last search. */
  async limit() {
    const before = this.shown
    if (!before) return
    try {
      Object.assign(before, await this.objects(before.size))
      if (this.shown === before) this.page.display.refresh()
    } catch (error) {
      if (this.shown === before) complain('work', words(error))
    }
  }
}

/** @param {Size} image @returns {Size} */
function drawnSize({ width, height }) {
  const scale = VIEW / Math.max(width, height)
  return {
    width: Math.max(1, Math.round(width * scale)),
    height: Math.max(1, Math.round(height * scale)),
  }
}
