// The separately encoded views of a large image, and the text about them.

import { cropOf, fineness, nameOf, placementOf, WHOLE, whereOf, withNews } from '../image/crop.js'
import { inputSize } from '../shared/contract.js'
import { ui } from './elements.js'
import { hideProgress, say, showProgress } from './messages.js'
import { encodeFrame } from './open-image.js'

/** @typedef {import('../image/crop.js').Crop} Crop */
/** @typedef {import('../image/objects.js').Step} Step */
/** @typedef {import('../shared/preprocessing.js').Placement} Placement */
/** @typedef {import('../shared/preprocessing.js').Prompt} Prompt */

/** The number of views that stay encoded beside the whole image; each takes 16 MiB at 1024 pixels. */
const KEPT = 4

export class ZoomedViews {
  /** The newest is last. @type {Map<string, { crop: Crop, place: Placement }>} */
  encoded = new Map()

  /** @param {import('../page.js').Page} page */
  constructor(page) {
    this.page = page
  }

  /** Forget all views: the pixels or the model have changed. */
  forget() {
    this.encoded = new Map()
  }

  /**
   * The crop to encode for the visible part of the image; null if the whole image will do.
   *
   * @param {import('../image/view.js').Rectangle} seen
   */
  cropOf(seen) {
    const { image, model } = this.page
    const { current } = image
    if (!current || !model.current || image.isSequence) return null
    const made = [...this.encoded.values()].map(({ crop }) => crop).reverse()
    return cropOf(seen, current, inputSize(model.current.manifest), made)
  }

  /**
   * The crop that answers a prompt.
   *
   * @param {Prompt} prompt
   * @param {Step | null} before
   */
  whereOf(prompt, before) {
    const seen = withNews(this.page.display.scene.seen, prompt, before?.prompt)
    return whereOf(prompt, before, this.cropOf(seen))
  }

  /**
   * Encode a view, unless it is already encoded.
   *
   * @param {Crop} crop
   * @param {import('./worker-client.js').Model} model
   * @returns {Promise<Placement>} the view's placement
   */
  async encode(crop, model) {
    const image = /** @type {import('./open-image.js').Sequence} */ (this.page.image.current)
    const name = nameOf(crop)
    const { resize } = model.manifest.preprocessing
    const before = this.encoded.get(name)
    const view = before ?? { crop, place: placementOf(crop, image, inputSize(model.manifest), resize) }
    this.encoded.delete(name)
    if (!before) {
      const kept = [...this.encoded].slice(1 - KEPT)
      const current = (this.encoded = new Map(kept))
      showProgress('Encoding the zoomed view')
      say('Encoding the zoomed view.')
      try {
        const names = [WHOLE, ...this.encoded.keys()]
        await encodeFrame(image, 0, model, view.place, name, names)
      } finally {
        hideProgress()
      }
      if (this.encoded !== current) return view.place // views were forgotten meanwhile
    }
    this.encoded.set(name, view)
    this.tell()
    return view.place
  }

  /** Show whether the next click uses a separately encoded view. */
  tell() {
    const { current } = this.page.image
    const crop = current && this.cropOf(this.page.display.scene.seen)
    ui.zoomed.hidden = !crop
    if (!crop) return
    const times = fineness(crop, current).toFixed(1)
    const what = this.encoded.has(nameOf(crop)) ? 'This view is encoded' : 'The next click encodes this view'
    ui.zoomed.textContent = `${what} separately, ${times} times as fine as the whole image.`
  }
}
