// Which values of the open image are black and white: the state behind the panel's two sliders.

import { ui } from './elements.js'

export class Contrast {
  /** The channel that the sliders show, counted from 0. */
  channel = 0

  /** @param {import('../page.js').Page} page */
  constructor(page) {
    this.page = page
    ui.black.oninput = ui.white.oninput = () => this.choose()
    ui.black.onchange = ui.white.onchange = () => void page.image.encodeAnew()
    ui.automatic.onclick = () => {
      this.levels?.choose(this.channel, null)
      this.changed()
      void page.image.encodeAnew()
    }
  }

  get levels() {
    return this.page.image.current?.levels
  }

  /** Show a channel's range on the sliders. @param {number} [channel] */
  show(channel = this.channel) {
    const { levels } = this
    if (!levels || channel < 0) return // a colour without a channel
    this.channel = channel
    const { channels } = this.page.image.current?.planes.first ?? { channels: [] }
    const name = channels.length > 1 ? `${channels[channel]}: ` : ''
    const { low, high } = levels.bounds(channel)
    const range = levels.of(channel)
    for (const [slider, value] of /** @type {const} */ ([[ui.black, range.low], [ui.white, range.high]])) {
      slider.min = String(low)
      slider.max = String(high)
      slider.step = levels.areBytes ? '1' : 'any'
      slider.value = String(value)
    }
    ui.range.textContent = `${name}${short(range.low)} is black, ${short(range.high)} is white.`
    ui.automatic.disabled = !levels.chosen.has(channel)
  }

  choose() {
    const [low, high] = [Number(ui.black.value), Number(ui.white.value)]
    if (low < high) this.levels?.choose(this.channel, { low, high })
    this.changed()
  }

  changed() {
    this.show()
    void this.page.sequence.redraw()
  }
}

/** @param {number} value */
const short = (value) => value.toLocaleString('en', { maximumSignificantDigits: 5, useGrouping: false })
