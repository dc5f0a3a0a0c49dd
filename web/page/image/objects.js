// The objects of an image or of a sequence's frames: which there are, which one is worked on, and the
// steps of each. No DOM.

/** @typedef {import('../shared/preprocessing.js').Prompt} Prompt */
/**
 * @typedef {object} Answer
 * @property {import('../shared/feeds.js').Values} masks
 * @property {Float32Array} scores
 * @property {number} best which of the masks is the best
 * @property {number} threshold above which a logit is inside
 * @property {import('../shared/preprocessing.js').Placement} place of the image
 * @property {number} milliseconds
 */
/**
 * One state of an object's prompt; undo goes back to the one before.
 *
 * @typedef {object} Step
 * @property {Prompt} prompt in image pixels
 * @property {Step | null} refines the step whose mask it starts from
 * @property {number} frame
 * @property {number} id of its object
 * @property {Answer | null} answer null until the decoder has run
 * @property {number | null} choice the mask a person chose; null is the best-scored
 * @property {number} since when it was asked for, in the page's time
 * @property {Gone} [gone]
 * @property {import('./crop.js').Crop | null} [crop] the part of the image that answers it
 * @property {Step | null} [around] the step whose mask stays outside of the crop
 */
/**
 * Where an object is not, as a person said: on the step's frame, after it, before it; there until the
 * next frame on which it is prompted.
 *
 * @typedef {{ here?: boolean, after?: boolean, before?: boolean }} Gone
 */
/**
 * @typedef {object} Entry
 * @property {number} id from 1, never given twice
 * @property {number} number from 1, which it keeps: its value in a picture of labels
 * @property {string} name empty until a person gives one
 * @property {string} color as `#rrggbb`
 * @property {readonly Step[]} steps on the frame that is shown
 * @property {ReadonlyMap<number, readonly Step[]>} elsewhere steps on other frames
 * @property {boolean} [stays] whether it is left out when objects are tracked
 */
/**
 * @typedef {object} Objects
 * @property {readonly Entry[]} entries at least one
 * @property {number} current the number of the one that is worked on
 * @property {readonly Deletion[]} deletions that undo can take back, the latest last
 * @property {number} frame that is shown
 * @property {number} ids how many were given
 */
/** @typedef {ReadonlyMap<number, Step>} Shown the tracked mask of each object on a frame, by its id */
/** @typedef {{ entry: Entry, index: number, since: number }} Deletion of which place, and when */

/** One object without a prompt. @param {string} color @returns {Objects} */
export function started(color) {
  return { entries: [made(1, 1, color)], current: 1, deletions: [], frame: 0, ids: 1 }
}

/** @param {number} id @param {number} number @param {string} color @returns {Entry} */
const made = (id, number, color) => {
  return { id, number, name: '', color, steps: [], elsewhere: new Map() }
}

/** The one that is worked on. @param {Objects} objects @returns {Entry} */
export function currentOf({ entries, current }) {
  return /** @type {Entry} */ (entries.find(({ number }) => number === current))
}

/** The step that is shown; null without a prompt. @param {Entry} entry @returns {Step | null} */
export const lastStep = ({ steps }) => lastOf(steps)

/** @param {readonly Step[]} steps @returns {Step | null} */
function lastOf(steps) {
  const last = steps.at(-1)
  return last && isPrompted(last) ? last : null
}

/** @param {Step} step */
const isPrompted = ({ prompt }) => prompt.points.length > 0 || prompt.box !== null

/**
 * Whether an object is not on a frame, as a person said.
 *
 * @param {Entry} entry
 * @param {number} frame
 */
export function isGone(entry, frame) {
  const said = framesOf(entry).flatMap((steps) => steps.at(-1) ?? [])
  const here = said.find((step) => step.frame === frame)
  if (here && (here.gone?.here || isPrompted(here))) return Boolean(here.gone?.here)
  /** @param {'after' | 'before'} side @param {Step[]} steps the nearest first */
  const isBeyond = (side, steps) => steps.find((step) => step.gone?.[side] || isPrompted(step))?.gone?.[side]
  const earlier = said.filter((step) => step.frame < frame).sort((one, other) => other.frame - one.frame)
  const later = said.filter((step) => step.frame > frame).sort((one, other) => one.frame - other.frame)
  return Boolean(isBeyond('after', earlier) || isBeyond('before', later))
}

/** The steps of each frame. @param {Entry} entry */
const framesOf = ({ steps, elsewhere }) => [steps, ...elsewhere.values()]

/** On all frames. @param {Entry} entry */
const stepsOf = (entry) => framesOf(entry).flat()

/** Of the objects that undo can bring back too. @param {Objects} objects */
export const allSteps = ({ entries, deletions }) =>
  [...entries, ...deletions.map(({ entry }) => entry)].flatMap(stepsOf)

/** The last step of each object on each frame. @param {Objects} objects @returns {Step[]} */
export const lastSteps = ({ entries }) =>
  entries.flatMap(framesOf).flatMap((steps) => lastOf(steps) ?? [])

/**
 * With another frame shown, and the steps on it.
 *
 * @param {Objects} objects
 * @param {number} frame
 * @returns {Objects}
 */
export function atFrame(objects, frame) {
  if (frame === objects.frame) return objects
  /** @param {Entry} entry @returns {Entry} */
  const turned = (entry) => {
    const elsewhere = new Map(entry.elsewhere)
    if (entry.steps.length) elsewhere.set(objects.frame, entry.steps)
    elsewhere.delete(frame)
    return { ...entry, steps: entry.elsewhere.get(frame) ?? [], elsewhere }
  }
  const deletions = objects.deletions.map((each) => ({ ...each, entry: turned(each.entry) }))
  return { ...objects, frame, entries: objects.entries.map(turned), deletions }
}

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
  const unused = entries.find((entry) => !lastStep(entry) && !entry.elsewhere.size)
  if (unused) return chosen(objects, unused.number)
  const number = nextNumber(entries)
  const ids = objects.ids + 1
  return { ...objects, entries: [...entries, made(ids, number, color)], current: number, ids }
}

/** @param {readonly Entry[]} entries */
const nextNumber = (entries) => Math.max(0, ...entries.map(({ number }) => number)) + 1

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
 * @param {number} since when that was asked for, in the page's time
 * @returns {Objects}
 */
export function removed(objects, number, since) {
  const { entries, current, deletions: before } = objects
  const index = entries.findIndex((entry) => entry.number === number)
  const entry = entries[index]
  const deletions = stepsOf(entry).length ? [...before, { entry, index, since }] : before
  const rest = entries.filter((other) => other !== entry)
  if (!rest.length) {
    const ids = objects.ids + 1
    return { ...objects, entries: [made(ids, 1, entry.color)], current: 1, deletions, ids }
  }
  const next = rest[Math.min(index, rest.length - 1)].number
  return { ...objects, entries: rest, current: current === number ? next : current, deletions }
}

/**
 * With the object that was deleted last, and working on it. It has another number only if its own
 * was given away meanwhile.
 *
 * @param {Objects} objects
 * @returns {Objects}
 */
function restored(objects) {
  const { entries, deletions } = objects
  const { entry, index } = /** @type {Deletion} */ (deletions.at(-1))
  const [only] = entries
  const isStandIn = entries.length === 1 && !stepsOf(only).length && !only.name
  const others = isStandIn ? [] : entries
  const isTaken = others.some(({ number }) => number === entry.number)
  const number = isTaken ? nextNumber(others) : entry.number
  return {
    ...objects,
    ids: isStandIn ? objects.ids - 1 : objects.ids, // the other one's was not used
    entries: others.toSpliced(index, 0, { ...entry, number }),
    current: number,
    deletions: deletions.slice(0, -1),
  }
}

/**
 * @param {Objects} objects
 * @param {number} number
 * @param {Partial<Entry>} change
 * @returns {Objects}
 */
export function changed(objects, number, change) {
  const edit = (/** @type {Entry} */ entry) =>
    entry.number === number ? { ...entry, ...change } : entry
  return { ...objects, entries: objects.entries.map(edit) }
}

/** The current object after one step more. @param {Objects} objects @param {Step} step */
export const stepped = (objects, step) =>
  changed(objects, objects.current, { steps: [...currentOf(objects).steps, step] })

/**
 * The current object after a prompt on the frame that is shown.
 *
 * @param {Objects} objects
 * @param {Prompt} prompt
 * @param {Step | null} refines the step whose mask it starts from
 * @param {number} since when that was asked for, in the page's time
 * @param {Pick<Step, 'crop' | 'around'>} [where]
 */
export function prompted(objects, prompt, refines, since, where) {
  const { frame } = objects
  const { id, steps } = currentOf(objects)
  const gone = { ...steps.at(-1)?.gone, here: false }
  const step = { prompt, refines, frame, id, answer: null, choice: null, since, gone, ...where }
  return stepped(objects, step)
}

/**
 * The current object after it was said to be gone, or to be there again where that was said before.
 *
 * @param {Objects} objects
 * @param {keyof Gone} where from the frame that is shown
 * @param {number} since when that was asked for, in the page's time
 */
export function left(objects, where, since) {
  const { id, steps } = currentOf(objects)
  const last = steps.at(-1)
  const gone = { ...last?.gone, here: false, [where]: !last?.gone?.[where] }
  /** @type {Step} */
  const none = {
    ...{ prompt: { points: [], box: null }, refines: null, answer: null, choice: null },
    ...{ frame: objects.frame, id, since, gone },
  }
  const isThere = last && !gone.here && !last.gone?.here
  return stepped(objects, isThere ? { ...last, gone, since } : none)
}

/**
 * The current object without a prompt, which is a step too.
 *
 * @param {Objects} objects
 * @param {number} since when that was asked for, in the page's time
 */
export function cleared(objects, since) {
  if (!lastStep(currentOf(objects))) return objects
  return prompted(objects, { points: [], box: null }, null, since)
}

/** Whether there is anything to undo. @param {Objects} objects */
export const isUndoable = (objects) =>
  currentOf(objects).steps.length > 0 || objects.deletions.length > 0

/**
 * The current object before its last step, or before an object was deleted if that came later.
 *
 * @param {Objects} objects
 * @returns {Objects}
 */
export function undone(objects) {
  const step = currentOf(objects).steps.at(-1)
  const deletion = objects.deletions.at(-1)
  if (deletion && !(step && step.since > deletion.since)) return restored(objects)
  return changed(objects, objects.current, { steps: currentOf(objects).steps.slice(0, -1) })
}

/**
 * The first step that has no answer yet: of the current object if there is one, then on the frame
 * that is shown.
 *
 * @param {Objects} objects
 * @returns {Step | null}
 */
export function unanswered(objects) {
  const entries = [currentOf(objects), ...objects.entries]
  const steps = [...entries.map(lastStep), ...lastSteps(objects)]
  return steps.find((step) => step && !step.answer) ?? null
}
