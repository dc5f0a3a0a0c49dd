// The keyboard's cross, and an unfinished box.

import { clamp } from '../image/view.js'
import { tool } from './elements.js'
import { say } from './messages.js'

/** @typedef {import('../image/view.js').At} At */

/** Places are in image parts. */
export class Cursor {
  /** @type {At | null} */
  cross = null
  /** Where a box begins. @type {At | null} */
  corner = null
  /** Where the box would end now. @type {At | null} */
  opposite = null

  /** @param {import('../page.js').Page} page */
  constructor(page) {
    this.page = page
  }

  dropBox() {
    this.corner = this.opposite = null
  }

  /** Show the box as drawn so far. @param {At} from @param {At | null} to null to cancel the box */
  drag(from, to) {
    this.cross = null
    this.corner = to && from
    this.opposite = to
    this.page.display.scene.draw()
  }

  /** @param {number} x @param {number} y how far the cross moves */
  move(x, y) {
    const { scene } = this.page.display
    const from = this.cross ?? { x: 0.5, y: 0.5 }
    const cross = (this.cross = { x: clamp(from.x + x, 0, 1), y: clamp(from.y + y, 0, 1) })
    if (this.corner) this.opposite = cross
    scene.reveal(cross)
    scene.draw()
    const [right, down] = [Math.round(cross.x * 100), Math.round(cross.y * 100)]
    say(`Cross at ${right} % from the left, ${down} % down.`)
  }

  /** Set a point, or a corner of a box, at the cross. @param {boolean} [isForced] */
  place(isForced = false) {
    const { canPrompt, prompting } = this.page
    if (!canPrompt) return
    const cross = (this.cross ??= { x: 0.5, y: 0.5 })
    if (tool() !== 'box') {
      prompting.point(cross, isForced)
    } else if (this.corner && this.opposite) {
      const [from, to] = [this.corner, this.opposite]
      this.dropBox()
      prompting.setBox(from, to)
    } else {
      this.corner = cross
      say('One corner is set. Move to the other and press Enter.')
    }
  }
}
