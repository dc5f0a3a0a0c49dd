// The row under the image for choosing the slice and channels that are shown and encoded.

import { firstColors, NONE } from '../frames/planes.js'
import { ui } from './elements.js'
import { say } from './messages.js'

/** @typedef {import('../frames/planes.js').Planes} Planes */

/** The option for several channels, shown as colours. */
const MIXED = 'mixed'

export class PlaneControls {
  /** @param {import('../page.js').Page} page */
  constructor(page) {
    this.page = page
    this.colors = [ui.redChannel, ui.greenChannel, ui.blueChannel]
    ui.slice.oninput = () => this.chooseSlice()
    ui.slice.onchange = () => void page.image.showPlanes() // when the slider is released
    ui.channel.onchange = () => this.chooseChannels()
    for (const select of this.colors) {
      select.onchange = () => this.chooseChannels(select)
      select.onfocus = () => page.contrast.show(Number(select.value))
    }
  }

  /** @returns {Planes | undefined} */
  get planes() {
    return this.page.image.current?.planes
  }

  /** Another image or sequence is open. @param {Planes} planes */
  opened({ first }) {
    const { channels, slices, isColored } = first ?? { channels: [], slices: 1, isColored: true }
    ui.planes.hidden = channels.length < 2 && slices < 2
    ui.slices.hidden = slices < 2
    ui.channels.hidden = channels.length < 2
    ui.mix.hidden = true
    ui.slice.max = String(slices)
    ui.slice.value = '1'
    this.showSlice()
    const options = channels.map((name, channel) => new Option(name, String(channel)))
    if (!isColored) options.push(new Option('Several, as colours', MIXED))
    ui.channel.replaceChildren(...options)
    for (const [index, select] of this.colors.entries()) {
      const none = new Option('none', String(NONE))
      select.replaceChildren(...channels.map((name, i) => new Option(name, String(i))), none)
      select.value = String(firstColors(channels.length)[index])
    }
  }

  showSlice() {
    ui.sliceNumber.textContent = `${ui.slice.value} of ${ui.slice.max}`
    ui.slice.setAttribute('aria-valuetext', ui.sliceNumber.textContent)
  }

  chooseSlice() {
    this.showSlice()
    this.planes?.choose({ slice: Number(ui.slice.value) - 1 })
    void this.page.sequence.redraw()
    say(`Slice ${ui.sliceNumber.textContent}. Masks stay; your next click is on this slice.`)
  }

  /** @param {HTMLSelectElement} [changed] a colour's select: the contrast shows its channel */
  chooseChannels(changed) {
    const isMixed = ui.channel.value === MIXED
    ui.mix.hidden = !isMixed
    const chosen = isMixed ? this.colors : [ui.channel]
    this.planes?.choose({ colors: chosen.map(({ value }) => Number(value)) })
    this.page.contrast.show(Number((changed ?? chosen[0]).value))
    void this.page.image.showPlanes()
  }
}
