// The figures of the drawn mask, in the panel and in words.

import { ui } from './elements.js'
import { duration, percent, say } from './messages.js'

export function showNothing() {
  ui.candidates.replaceChildren()
  for (const figure of [ui.decoderTime, ui.score, ui.area]) figure.textContent = '–'
}

/**
 * @param {number} count of the objects
 * @param {number} prompts the number of clicks
 * @param {number} milliseconds
 */
export function showEverything(count, prompts, milliseconds) {
  const objects = count === 1 ? 'One object' : `${count || 'No'} objects`
  const hint = count ? ' Click one to choose it; Undo takes back all.' : ''
  say(`${objects} found by ${prompts} clicks in ${duration(milliseconds)}.${hint}`)
}

/**
 * @param {import('../image/objects.js').Answer} answer
 * @param {number} shown the index of the shown mask
 * @param {number} share of the image that this mask covers
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
