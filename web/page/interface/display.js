// Draws and announces the page's state: the image with its masks and marks, the list of objects,
// and which controls are enabled.

import { boxOutline, crossHair, objectNumbers, promptMarks } from '../image/drawing.js'
import { layerOf, masked, shownStep } from '../image/layers.js'
import { maskOf, shownOf } from '../image/masks.js'
import { currentOf } from '../image/objects.js'
import { Scene } from '../image/scene.js'
import { refines } from '../shared/contract.js'
import { ui } from './elements.js'
import { showAnswer, showNothing } from './figures.js'
import { percent } from './messages.js'
import { ObjectList } from './object-list.js'

/** @typedef {import('../image/masks.js').Region} Region */
/** @typedef {import('../image/objects.js').Entry} Entry */
/** @typedef {import('../image/scene.js').Layer} Layer */
/** @typedef {import('../image/view.js').At} At */
/** @typedef {import('../image/view.js').Size} Size */

export class Display {
  /** @param {import('../page.js').Page} page */
  constructor(page) {
    this.page = page
    this.scene = new Scene(ui.frame, ui.picture, ui.overlay, this, () => page.look.look)
    this.scene.onView = () => {
      ui.zoomFit.textContent = `${Math.round(100 * this.scene.magnification)} %`
      ui.zoomFit.ariaLabel = `${ui.zoomFit.textContent}, show all of the image`
      page.views.tell()
    }
    this.list = new ObjectList(ui.objects, page.prompting)
  }

  refresh() {
    this.enable()
    this.scene.repaint()
    this.announce()
  }

  /** Enable the usable controls, and list the objects. */
  enable() {
    const { image, isBusy, canPrompt, prompting, sequence } = this.page
    const { isSequence } = image
    const model = this.page.model.current
    ui.prompting.disabled = ui.tracking.disabled = ui.addHere.disabled = !canPrompt
    ui.cancel.hidden = !isBusy
    ui.planes.disabled = isBusy
    ui.zooming.disabled = !image.current
    ui.contrast.disabled = !image.current || isBusy
    ui.refine.disabled = !model || !refines(model.manifest) || sequence.answers(model)
    ui.undo.disabled = !prompting.history.past.length
    ui.redo.disabled = !prompting.history.future.length
    ui.clear.disabled = !prompting.step
    ui.everything.disabled = !canPrompt || isSequence
    ui.save.disabled = !this.shownMask(currentOf(prompting.objects))
    const isAny = this.shownMasks.length || sequence.masks.frames.size
    ui.openMasks.disabled = !canPrompt
    ui.saveLabels.disabled = ui.saveCoco.disabled = !canPrompt || !isAny
    ui.saveLabels.textContent = `Save labels (${isSequence ? 'TIFF' : 'PNG'})`
    sequence.timeline()
    this.showObjects()
  }

  showObjects() {
    this.list.show(this.page.prompting.objects, (entry) => {
      const mask = this.shownMask(entry)
      return mask ? percent(mask.share) : '–'
    })
  }

  /** The mask of an object; null if it has none. @param {Entry} entry */
  shownMask(entry) {
    const { image, sequence } = this.page
    return image.place ? maskOf(shownStep(entry, sequence.shown)) : null
  }

  get shownMasks() {
    const { image, prompting, sequence } = this.page
    return image.place ? masked(prompting.objects, sequence.shown) : []
  }

  /** Masks for the scene. @param {Size} whole @param {Region} region @returns {Layer | null} */
  layer(whole, region) {
    const { everything, image, look, prompting } = this.page
    if (everything.search || !image.place || !look.hasMasks) return null
    const colors = new Map(prompting.objects.entries.map(({ number, color }) => [number, color]))
    return layerOf(this.shownMasks, whole, region, colors)
  }

  /** Draw over the masks. @param {CanvasRenderingContext2D} context @param {number} scale */
  marks(context, scale) {
    const { cursor, everything, image, look, prompting } = this.page
    if (!image.current) return
    const [width, height] = [image.current.width * scale, image.current.height * scale]
    const scaled = (/** @type {At} */ { x, y }) => ({ x: x * width, y: y * height })
    if (look.hasMarks) {
      const numbers = everything.search ? [] : this.numberPlaces()
      objectNumbers(context, numbers.map((at) => ({ ...at, ...scaled(at) })))
      if (prompting.step) promptMarks(context, prompting.step.prompt, scale, scale)
    }
    const { corner, opposite } = cursor
    if (corner && opposite) {
      boxOutline(context, [corner.x, corner.y, opposite.x, opposite.y], width, height)
    }
    const hasFocus = document.activeElement === ui.overlay
    if (cursor.cross && hasFocus) crossHair(context, scaled(cursor.cross))
  }

  /** Where the numbers of objects are drawn: on all except the current, which has its marks. */
  numberPlaces() {
    const { entries, current } = this.page.prompting.objects
    return entries.flatMap((entry) => {
      const middle = entry.number === current ? null : this.shownMask(entry)?.middle
      return middle ? [{ number: entry.number, ...middle }] : []
    })
  }

  /** Announce the drawn mask in words and figures. */
  announce() {
    const { everything, prompting, sequence } = this.page
    const entry = currentOf(prompting.objects)
    const step = shownStep(entry, sequence.shown)
    const mask = this.shownMask(entry)
    if (everything.search || !step?.answer || !mask) showNothing()
    else {
      const choose = (/** @type {number} */ index) => prompting.chooseMask(index)
      showAnswer(step.answer, shownOf(step, step.answer), mask.share, choose)
    }
  }
}
