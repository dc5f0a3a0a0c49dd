// The page's messages: its status, its progress, and its problems.

import { ui } from './elements.js'

export { words } from '../shared/words.js'

/**
 * The subject of a problem, which is shown until the user tries again.
 *
 * @typedef {'address' | 'model' | 'image' | 'work'} Subject
 */

/** The problems, and how to retry. @type {Map<Subject, { text: string, retry?: () => void }>} */
const problems = new Map()

/** @param {string} text */
export function say(text) {
  ui.status.textContent = text
}

/**
 * @param {Subject} subject
 * @param {string} text
 * @param {() => void} [retry] tries again: when the user asks, or when the browser is online again
 */
export function complain(subject, text, retry) {
  problems.set(subject, { text, retry })
  showProblems()
}

/** Remove problems. @param {...Subject} subjects */
export function settle(...subjects) {
  const removed = subjects.filter((subject) => problems.delete(subject))
  if (removed.length) showProblems()
}

function showProblems() {
  const all = [...problems.values()].filter(({ text }) => text)
  ui.problem.hidden = !all.length
  ui.problemText.textContent = all.map(({ text }) => text).join('\n\n')
  ui.retry.hidden = !all.some(({ retry }) => retry)
}

function retryAll() {
  const all = [...problems].filter(([, { retry }]) => retry)
  settle(...all.map(([subject]) => subject))
  for (const [, { retry }] of all) retry?.()
}

ui.retry.onclick = retryAll
addEventListener('online', retryAll)

ui.dismiss.onclick = () => {
  for (const problem of problems.values()) problem.text = '' // still retried when online again
  showProblems()
  if (!ui.overlay.hidden) ui.overlay.focus()
}

/**
 * @param {string} phase
 * @param {number} [done]
 * @param {number} [total]
 * @param {string} [unit] of both
 */
export function showProgress(phase, done, total, unit) {
  ui.waiting.hidden = false
  if (done === undefined || total === undefined) {
    ui.phase.textContent = `${phase}…`
    ui.progress.removeAttribute('value')
  } else {
    const amount = unit === 'bytes' ? mebibytes : String
    const counted = unit === 'bytes' ? '' : ` ${unit}`
    ui.phase.textContent = `${phase} ${amount(done)} of ${amount(total)}${counted}`
    ui.progress.max = total
    ui.progress.value = done
  }
}

export function hideProgress() {
  ui.waiting.hidden = true
}

/** @param {number} bytes */
export const mebibytes = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MiB`

/** @param {number} time in milliseconds */
export const duration = (time) =>
  time < 1000 ? `${time.toFixed(time < 100 ? 1 : 0)} ms` : `${(time / 1000).toFixed(2)} s`

/** @param {number} part */
export const percent = (part) => `${(100 * part).toFixed(1)} %`
