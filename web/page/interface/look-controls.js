// How masks look: the state behind the panel's opacity, outline and colours.

import { storedLook, storeLook } from '../image/look.js'
import { ui } from './elements.js'
import { say } from './messages.js'

export class LookControls {
  look = storedLook()

  /** @param {() => void} onChange */
  constructor(onChange) {
    ui.opacity.value = String(Math.round(this.look.opacity * 100))
    ui.outline.checked = this.look.outline
    ui.opacity.oninput = ui.outline.onchange = () => {
      this.change({ opacity: Number(ui.opacity.value) / 100, outline: ui.outline.checked })
      onChange()
    }
    ui.showMasks.onchange = ui.showMarks.onchange = onChange
    this.onChange = onChange
  }

  get hasMasks() {
    return ui.showMasks.checked
  }

  /** Whether points, boxes and numbers are shown. */
  get hasMarks() {
    return ui.showMarks.checked
  }

  /** Hide masks and marks, or show both. */
  toggle() {
    const isShown = !this.hasMasks && !this.hasMarks
    ui.showMasks.checked = ui.showMarks.checked = isShown
    this.onChange()
    say(isShown ? 'Masks and marks are shown.' : 'Masks and marks are hidden. Press H to show them.')
  }

  /** Show masks, so that a new one is visible. */
  showMasks() {
    ui.showMasks.checked = true
  }

  /** @param {Partial<import('../image/look.js').Look>} change */
  change(change) {
    this.look = { ...this.look, ...change }
    storeLook(this.look)
  }
}
