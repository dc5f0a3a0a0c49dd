// The frames of a sequence under the image: which is shown, and where masks are.

import { ui } from './elements.js'

/**
 * @typedef {object} Handlers
 * @property {(frame: number) => void} onFrame
 * @property {(ways: Way[]) => void} onTrack
 */
/** @typedef {'on' | 'back'} Way in which tracking goes */
/**
 * @typedef {object} Known
 * @property {number} count of frames
 * @property {number} frame that is shown
 * @property {ReadonlySet<number>} prompted frames
 * @property {ReadonlySet<number>} tracked frames
 */

/** Pixels of the strip for one frame, at most; more frames than pixels share them. */
const STRIP = 2000

/** @param {Handlers} handlers */
export function followTimeline({ onFrame, onTrack }) {
  ui.slider.oninput = () => onFrame(Number(ui.slider.value) - 1)
  ui.earlier.onclick = () => onFrame(Number(ui.slider.value) - 2)
  ui.later.onclick = () => onFrame(Number(ui.slider.value))
  ui.trackBack.onclick = () => onTrack(['back'])
  ui.trackBoth.onclick = () => onTrack(['on', 'back'])
  ui.trackOn.onclick = () => onTrack(['on'])
}

/** @param {Known} known */
export function showTimeline({ count, frame, prompted, tracked }) {
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
