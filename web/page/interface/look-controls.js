// How masks look: the state behind the panel's opacity, outline and colours.

import { storedLook, storeLook } from '../image/look.js'
import { ui } from './elements.js'


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
  }

  /** @param {Partial<import('../image/look.js').Look>} change */
  change(change) {
    this.look = { ...this.look, ...change }
    storeLook(this.look)
  }
}
