// "Everything": clicks on a grid; the objects among their masks are added to the user's objects.

import { logitsOn, maskOf } from '../image/masks.js'
import { lastStep } from '../image/objects.js'
import { ui } from './elements.js'
import { showEverything } from './figures.js'
import { complain, hideProgress, say, settle, words } from './messages.js'

/** @typedef {import('../image/objects.js').Objects} Objects */
/**
 * The last search.
 *
 * @typedef {object} Search
 * @property {number} prompts the number of clicks
 * @property {number} milliseconds
 * @property {number} side of their masks, in cells; 0 if there are none
 * @property {Objects} before
 * @property {Objects} after
 */

export class EverythingSearch {
  /** @type {Search | null} */
  last = null
  /** Stops the running search. @type {AbortController | null} */
  search = null
  searches = 0

  /** @param {import('../page.js').Page} page */
  constructor(page) {
    this.page = page
    ui.segment.onclick = () => void this.segment()
    ui.leastScore.oninput = ui.leastStability.oninput = () => void this.limit()
  }

  /** Drop the search: another model or image is open. */
  abandon() {
    this.search?.abort()
    this.last = this.search = null
  }

  /** Click on each point of a grid, and add the objects. */
  async segment() {
    const { page } = this
    const [model, place] = [page.model.current, page.image.place]
    if (!model || !place || page.isBusy) return
    const stop = (this.search = new AbortController())
    this.last = null
    page.cursor.dropBox()
    settle('image', 'work')
    page.display.refresh()
    say('Segmenting everything.')
    /** @type {string | null} */
    let problem = null
    try {
      const args = { side: Number(ui.grid.value), place }
      const counts = await model.call('everything', args, stop.signal)
      const before = page.prompting.objects
      if (counts && this.search === stop) this.last = { ...counts, before, after: before }
    } catch (error) {
      problem = words(error)
    }
    if (this.search !== stop) return // another model or image was opened meanwhile
    this.search = null
    hideProgress()
    page.display.refresh()
    if (problem) complain('work', `The decoder failed.\n${problem}`)
    else if (!this.last) say('Cancelled.')
    else {
      this.searches++
      await this.limit()
    }
  }

  /** Replace the objects of the last search by those that are within the current limits. */
  async limit() {
    const { last, page } = this
    const { current: model } = page.model
    const { place } = page.image
    if (!last || !model || !place) return
    const isSame = () => this.last === last && page.prompting.objects.entries === last.after.entries
    if (!isSame()) {
      say('Objects have changed since: segment everything again to use these limits.')
      return
    }
    const limits = { score: Number(ui.leastScore.value), stability: Number(ui.leastStability.value) }
    const present = last.before.entries.flatMap((entry) => {
      const mask = maskOf(lastStep(entry))
      return mask && last.side ? [logitsOn(mask, place, last.side)] : []
    })
    const { prompts, milliseconds } = last
    const threshold = model.manifest.prompts.mask_threshold
    try {
      /** @type {import('../image/everything.js').Candidate[]} */
      const objects = await model.call('objects', { limits, place, present })
      if (!isSame()) return
      const further = objects.map(({ logits, size, score, point }) => {
        const masks = { data: logits, dims: [1, 1, size, size] }
        const scores = Float32Array.of(score)
        const each = milliseconds / prompts
        const answer = { masks, scores, best: 0, threshold, place, milliseconds: each }
        return { step: { prompt: { points: [point], box: null }, answer, since: performance.now() } }
      })
      page.prompting.join(last.before, further, `everything ${this.searches}`)
      last.after = page.prompting.objects
      showEverything(objects.length, prompts, milliseconds)
    } catch (error) {
      if (isSame()) complain('work', words(error))
    }
  }
}
