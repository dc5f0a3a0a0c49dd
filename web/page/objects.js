// The objects of an image: which there are, which one is worked on, and the steps of each. No DOM.

/** @typedef {import('./preprocessing.js').Prompt} Prompt */
/**
 * @typedef {object} Answer
 * @property {import('./feeds.js').Values} masks
 * @property {Float32Array} scores
 * @property {number} milliseconds
 */
/**
 * One state of an object's prompt; undo goes back to the one before.
 *
 * @typedef {object} Step
 * @property {Prompt} prompt in image pixels
 * @property {Step | null} refines the step whose mask it starts from
 * @property {Answer | null} answer null until the decoder has run
 * @property {number | null} choice the mask a person chose; null is the best-scored
 * @property {number} since when it was asked for, in the page's time
 */
/**
 * @typedef {object} Entry
 * @property {number} number from 1, which it keeps: its value in a picture of labels
 * @property {string} name empty until a person gives one
 * @property {string} color as `#rrggbb`
 * @property {readonly Step[]} steps
 */
/** @typedef {{ entries: readonly Entry[], current: number }} Objects never without an entry */

/**
 * One object without a prompt.
 *
 * @param {string} color
 * @returns {Objects}
 */
export function started(color) {
  return { entries: [{ number: 1, name: '', color, steps: [] }], current: 1 }
}

/** The one that is worked on. @param {Objects} objects @returns {Entry} */
export function currentOf({ entries, current }) {
  return /** @type {Entry} */ (entries.find(({ number }) => number === current))
}

/** @param {Entry} entry @returns {Step | null} */
export const lastStep = ({ steps }) => steps.at(-1) ?? null

/** What a person calls it. @param {Entry} entry */
export const titleOf = ({ name, number }) => name.trim() || `Object ${number}`

/**
 * A further object, which is worked on from now. One that has no prompt yet is enough.
 *
 * @param {Objects} objects
 * @param {string} color
 * @returns {Objects}
 */
export function added(objects, color) {
  const { entries } = objects
  const unused = entries.find(({ steps }) => !steps.length)
  if (unused) return chosen(objects, unused.number)
  const number = Math.max(...entries.map((entry) => entry.number)) + 1
  return { entries: [...entries, { number, name: '', color, steps: [] }], current: number }
}

/** @param {Objects} objects @param {number} number @returns {Objects} */
export function chosen(objects, number) {
  const known = objects.entries.some((entry) => entry.number === number)
  return known ? { ...objects, current: number } : objects
}

/**
 * Without an object. After the one that is worked on comes the next, or else the one before.
 *
 * @param {Objects} objects
 * @param {number} number
 * @returns {Objects}
 */
export function removed({ entries, current }, number) {
  const index = entries.findIndex((entry) => entry.number === number)
  const rest = entries.filter((entry) => entry.number !== number)
  if (!rest.length) return started(entries[0].color)
  const next = rest[Math.min(index, rest.length - 1)].number
  return { entries: rest, current: current === number ? next : current }
}

/**
 * @param {Objects} objects
 * @param {number} number
 * @param {Partial<Pick<Entry, 'name' | 'color'>>} change
 * @returns {Objects}
 */
export function changed({ entries, current }, number, change) {
  const edit = (/** @type {Entry} */ entry) =>
    entry.number === number ? { ...entry, ...change } : entry
  return { entries: entries.map(edit), current }
}

/** The current object after one step more. @param {Objects} objects @param {Step} step */
export const stepped = (objects, step) => withSteps(objects, (steps) => [...steps, step])

/** The current object before its last step. @param {Objects} objects */
export const undone = (objects) => withSteps(objects, (steps) => steps.slice(0, -1))

/** The current object without a prompt. @param {Objects} objects */
export const cleared = (objects) => withSteps(objects, () => [])

/**
 * @param {Objects} objects
 * @param {(steps: readonly Step[]) => readonly Step[]} change
 * @returns {Objects}
 */
function withSteps({ entries, current }, change) {
  const edit = (/** @type {Entry} */ entry) =>
    entry.number === current ? { ...entry, steps: change(entry.steps) } : entry
  return { entries: entries.map(edit), current }
}

/**
 * The first step that has no answer yet: of the current object if there is one.
 *
 * @param {Objects} objects
 * @returns {Step | null}
 */
export function unanswered(objects) {
  const entries = [currentOf(objects), ...objects.entries]
  return entries.map(lastStep).find((step) => step && !step.answer) ?? null
}
