// The figures of what is drawn, in the panel and in words.

import { ui } from './elements.js'
import { duration, percent, say } from './messages.js'

export function showNothing() {
  ui.candidates.replaceChildren()
  for (const figure of [ui.decoderTime, ui.score, ui.area]) figure.textContent = '–'
}

/**
 * @param {{ labels: Uint16Array, middles: unknown[], prompts: number, milliseconds: number }}
 *   everything
 */
export function showEverything({ labels, middles, prompts, milliseconds }) {
  const count = middles.length === 1 ? 'One object' : `${middles.length || 'No'} objects`
  const share = labels.reduce((sum, label) => sum + Math.min(label, 1), 0) / labels.length
  showNothing()
  ui.decoderTime.textContent = `${duration(milliseconds / prompts)} a click`
  ui.area.textContent = percent(share)
  say(`${count} found by ${prompts} clicks in ${duration(milliseconds)}.`)
}

/**
 * @param {import('../image/objects.js').Answer} answer
 * @param {number} shown which of its masks
 * @param {number} share of the image that this covers
 * @param {(index: number) => void} onChoose
 */
export function showAnswer({ scores, milliseconds }, shown, share, onChoose) {
  const labels = [...scores].map((score, index) => {
    const label = document.createElement('label')
    const choice = document.createElement('input')
    choice.type = 'radio'
    choice.name = 'candidate'
    choice.value = String(index)
    choice.checked = index === shown
    choice.onchange = () => onChoose(index)
    label.append(choice, ` ${index + 1}: ${score.toFixed(3)}`)
    return label
  })
  ui.candidates.replaceChildren(...labels)
  ui.decoderTime.textContent = duration(milliseconds)
  ui.score.textContent = scores[shown].toFixed(3)
  ui.area.textContent = percent(share)
  const which = scores.length > 1 ? `Mask ${shown + 1} of ${scores.length}` : 'Mask'
  say(`${which}: predicted IoU ${scores[shown].toFixed(2)}, ${percent(share)} of the image.`)
}
