// The timeline under the image: the shown frame, and the frames with masks.

import { ui } from './elements.js'

/**
 * @typedef {object} Handlers
 * @property {(frame: number) => void} onFrame
 * @property {(ways: Way[]) => void} onTrack
 * @property {(where: keyof Gone) => void} onGone
 */
/** @typedef {'on' | 'back'} Way the direction of tracking */
/** @typedef {import('../image/objects.js').Gone} Gone */
/**
 * @typedef {object} State
 * @property {number} count of frames
 * @property {number} frame that is shown
 * @property {ReadonlySet<number>} prompted frames
 * @property {ReadonlySet<number>} tracked frames
 * @property {Gone | undefined} gone the current object's absence, as marked on the shown frame
 */

/** The largest width of the strip in pixels; if there are more frames, they share pixels. */
const STRIP = 2000

/** @param {Handlers} handlers */
export function followTimeline({ onFrame, onTrack, onGone }) {
  ui.beginsHere.onclick = () => onGone('before')
  ui.notHere.onclick = () => onGone('here')
  ui.endsHere.onclick = () => onGone('after')
  ui.slider.oninput = () => onFrame(Number(ui.slider.value) - 1)
  ui.earlier.onclick = () => onFrame(Number(ui.slider.value) - 2)
  ui.later.onclick = () => onFrame(Number(ui.slider.value))
  ui.trackBack.onclick = () => onTrack(['back'])
  ui.trackBoth.onclick = () => onTrack(['on', 'back'])
  ui.trackOn.onclick = () => onTrack(['on'])
}

/** @param {State} state */
export function showTimeline({ count, frame, prompted, tracked, gone }) {
  ui.beginsHere.ariaPressed = String(Boolean(gone?.before))
  ui.notHere.ariaPressed = String(Boolean(gone?.here))
  ui.endsHere.ariaPressed = String(Boolean(gone?.after))
  ui.slider.max = String(count)
  ui.slider.value = String(frame + 1)
  ui.frameNumber.textContent = `${frame + 1} of ${count}`
  const states = [prompted.has(frame) && 'prompted', tracked.has(frame) && 'tracked']
  ui.slider.setAttribute(
    'aria-valuetext',
    [`${frame + 1} of ${count}`, ...states].filter(Boolean).join(', '),
  )
  drawStrip(count, prompted, tracked)
}

/** Set the range to all frames. @param {number} count of frames */
export function resetRange(count) {
  ui.firstFrame.max = ui.lastFrame.max = ui.lastFrame.value = String(count)
  ui.firstFrame.value = '1'
}

/** The first and the last frame to track, from 0; null for an invalid range. */
export function frameRange() {
  const [first, last] = [ui.firstFrame, ui.lastFrame].map((input) => input.valueAsNumber - 1)
  const isRange = ui.firstFrame.validity.valid && ui.lastFrame.validity.valid && first <= last
  return isRange ? { first, last } : null
}

/** @param {number} count @param {ReadonlySet<number>} prompted @param {ReadonlySet<number>} tracked */
function drawStrip(count, prompted, tracked) {
  const canvas = ui.known
  const width = Math.min(STRIP, count * 8)
  canvas.width = width
  canvas.height = 8
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d'))
  const colors = getComputedStyle(canvas)
  const each = width / count
  context.fillStyle = colors.color
  for (const frame of tracked) context.fillRect(frame * each, 3, Math.max(1, each), 2)
  context.fillStyle = colors.borderColor
  for (const frame of prompted) context.fillRect(frame * each, 0, Math.max(2, each), 8)
}
