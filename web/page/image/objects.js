// The objects of an image or of a sequence's frames: their list, the current object, and the steps of
// each. No DOM.

/** @typedef {import('../shared/preprocessing.js').Prompt} Prompt */
/**
 * @typedef {object} Answer
 * @property {import('../shared/feeds.js').Values} masks
 * @property {Float32Array} scores
 * @property {number} best the index of the best mask
 * @property {number} threshold above which a logit is inside
 * @property {import('../shared/preprocessing.js').Placement} place of the image
 * @property {number} milliseconds
 */
/**
 * One state of an object's prompt.
 *
 * @typedef {object} Step
 * @property {Prompt} prompt in image pixels
 * @property {Step | null} refines the step whose mask it starts from
 * @property {number} frame
 * @property {number} id of its object
 * @property {Answer | null} answer null until the decoder has run
 * @property {number | null} choice the index of the mask that the user chose; null for the best-scored
 * @property {number} since when the user made the prompt, in the page's time
 * @property {import('./pixel-mask.js').Pixels} [pixels] an opened mask, instead of a prompt
 * @property {Gone} [gone]
 * @property {import('./crop.js').Crop | null} [crop] the part of the image that answers it
 * @property {Step | null} [around] the step whose mask stays outside the crop
 */
/**
 * Where the user marked an object as absent: on the step's frame, after it, or before it; the last two
 * up to the next frame with a prompt.
 *
 * @typedef {{ here?: boolean, after?: boolean, before?: boolean }} Gone
 */
/**
 * @typedef {object} Entry
 * @property {number} id from 1, never reused
 * @property {number} number from 1, permanent: its value in a label image
 * @property {string} name empty until the user gives one
 * @property {string} color as `#rrggbb`
 * @property {readonly Step[]} steps on the shown frame
 * @property {ReadonlyMap<number, readonly Step[]>} elsewhere steps on other frames
 * @property {boolean} [isOpened] whether its masks on frames come from a file
 * @property {boolean} [stays] whether tracking leaves it out
 */
/**
 * @typedef {object} Objects
 * @property {readonly Entry[]} entries at least one
 * @property {number} current the number of the current object
 * @property {number} frame the shown frame
 * @property {number} ids how many ids were given
 */
/** @typedef {ReadonlyMap<number, Step>} Shown the tracked mask of each object on a frame, by its id */
/**
 * A new object with its mask. It gets another number if its own is taken.
 *
 * @typedef {object} Further
 * @property {number} [number]
 * @property {string} [name]
 * @property {Partial<Step> | null} step on the shown frame; null if frames have masks of it
 */

/** One object without a prompt. @param {string} color @returns {Objects} */
export function started(color) {
  return { entries: [made(1, 1, color)], current: 1, frame: 0, ids: 1 }
}

/** @param {number} id @param {number} number @param {string} color @returns {Entry} */
const made = (id, number, color) => {
  return { id, number, name: '', color, steps: [], elsewhere: new Map() }
}

/** The current object. @param {Objects} objects @returns {Entry} */
export function currentOf({ entries, current }) {
  return /** @type {Entry} */ (entries.find(({ number }) => number === current))
}

/** The shown step; null without a prompt. @param {Entry} entry @returns {Step | null} */
export const lastStep = ({ steps }) => lastOf(steps)

/** @param {readonly Step[]} steps @returns {Step | null} */
function lastOf(steps) {
  const last = steps.at(-1)
  return last && isPrompted(last) ? last : null
}

/** @param {Step} step */
const isPrompted = ({ prompt, pixels }) =>
  prompt.points.length > 0 || prompt.box !== null || pixels !== undefined

/**
 * Whether the user marked an object as absent on a frame.
 *
 * @param {Entry} entry
 * @param {number} frame
 */
export function isGone(entry, frame) {
  const last = framesOf(entry).flatMap((steps) => steps.at(-1) ?? [])
  const here = last.find((step) => step.frame === frame)
  if (here && (here.gone?.here || isPrompted(here))) return Boolean(here.gone?.here)
  /** @param {'after' | 'before'} side @param {Step[]} steps the nearest first */
  const isBeyond = (side, steps) => steps.find((step) => step.gone?.[side] || isPrompted(step))?.gone?.[side]
  const earlier = last.filter((step) => step.frame < frame).sort((one, other) => other.frame - one.frame)
  const later = last.filter((step) => step.frame > frame).sort((one, other) => one.frame - other.frame)
  return Boolean(isBeyond('after', earlier) || isBeyond('before', later))
}

/** The steps of each frame. @param {Entry} entry */
const framesOf = ({ steps, elsewhere }) => [steps, ...elsewhere.values()]

/** All steps, and the steps that they refine. @param {Objects} objects @returns {Set<Step>} */
export function allSteps({ entries }) {
  const all = new Set(entries.flatMap(framesOf).flat())
  for (const { refines } of all) if (refines) all.add(refines)
  return all
}

/** The last step of each object on each frame. @param {Objects} objects @returns {Step[]} */
export const lastSteps = ({ entries }) =>
  entries.flatMap(framesOf).flatMap((steps) => lastOf(steps) ?? [])

/**
 * The objects with another shown frame, and the steps on it.
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
  return { ...objects, frame, entries: objects.entries.map(turned) }
}

/** The object's name for people. @param {Entry} entry */
export const titleOf = ({ name, number }) => name.trim() || `Object ${number}`

/** Whether an object has no prompt on any frame. @param {Entry} entry */
export const isUnused = (entry) => !lastStep(entry) && !entry.elsewhere.size && !entry.isOpened

/**
 * The objects with a further one, which becomes the current. An object without a prompt is used first.
 *
 * @param {Objects} objects
 * @param {string} color
 * @returns {Objects}
 */
export function added(objects, color) {
  const { entries } = objects
  const unused = entries.find(isUnused)
  if (unused) return chosen(objects, unused.number)
  const number = nextNumber(entries)
  const ids = objects.ids + 1
  return { ...objects, entries: [...entries, made(ids, number, color)], current: number, ids }
}

/** @param {readonly { number?: number }[]} entries */
const nextNumber = (entries) =>
  entries.reduce((most, { number = 0 }) => Math.max(most, number), 0) + 1

/**
 * The objects with further ones that already have masks. They replace objects without a prompt and a
 * name. The first of them becomes the current.
 *
 * @param {Objects} objects
 * @param {Further[]} further
 * @param {(number: number) => string} colorOf
 * @returns {Objects}
 */
export function joined(objects, further, colorOf) {
  if (!further.length) return objects
  const kept = objects.entries.filter((entry) => entry.name || !isUnused(entry))
  const taken = new Set(kept.map(({ number }) => number))
  let [{ ids, frame }, next] = [objects, nextNumber([...kept, ...further])]
  const entries = further.map(({ number: own, name = '', step }) => {
    const number = own && !taken.has(own) ? own : next++
    taken.add(number)
    const entry = { ...made(++ids, number, colorOf(number)), name }
    if (!step) return { ...entry, isOpened: true }
    return { ...entry, steps: [{ ...EMPTY, ...step, frame, id: ids }] }
  })
  return { ...objects, entries: [...kept, ...entries], current: entries[0].number, ids }
}

const EMPTY = {
  prompt: { points: [], box: null },
  refines: null,
  answer: null,
  choice: null,
  since: 0,
}

/** @param {Objects} objects @param {number} number @returns {Objects} */
export function chosen(objects, number) {
  const exists = objects.entries.some((entry) => entry.number === number)
  return exists ? { ...objects, current: number } : objects
}

/**
 * The objects without one. If that was the current object, the next becomes the current, or else the
 * one before.
 *
 * @param {Objects} objects
 * @param {number} number
 * @returns {Objects}
 */
export function removed(objects, number) {
  const { entries, current } = objects
  const index = entries.findIndex((entry) => entry.number === number)
  const rest = entries.toSpliced(index, 1)
  if (!rest.length) {
    if (isUnused(entries[index])) return objects
    const ids = objects.ids + 1
    return { ...objects, entries: [made(ids, 1, entries[index].color)], current: 1, ids }
  }
  const next = rest[Math.min(index, rest.length - 1)].number
  return { ...objects, entries: rest, current: current === number ? next : current }
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

/** Add a step to the current object. @param {Objects} objects @param {Step} step */
export const stepped = (objects, step) =>
  changed(objects, objects.current, { steps: [...currentOf(objects).steps, step] })

/**
 * Prompt the current object on the shown frame.
 *
 * @param {Objects} objects
 * @param {Prompt} prompt
 * @param {Step | null} refines the step whose mask it starts from
 * @param {number} since when the user made the prompt, in the page's time
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
 * Mark the current object as absent, or remove the mark if it is set.
 *
 * @param {Objects} objects
 * @param {keyof Gone} where relative to the shown frame
 * @param {number} since when the user did that, in the page's time
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
 * Clear the prompt of the current object, which is also a step.
 *
 * @param {Objects} objects
 * @param {number} since when the user did that, in the page's time
 */
export function cleared(objects, since) {
  if (!lastStep(currentOf(objects))) return objects
  return prompted(objects, { points: [], box: null }, null, since)
}

/**
 * Choose another of the masks that the decoder drew for the current object.
 *
 * @param {Objects} objects
 * @param {number} choice
 */
export function withChoice(objects, choice) {
  const { steps } = currentOf(objects)
  const last = /** @type {Step} */ (steps.at(-1))
  return changed(objects, objects.current, { steps: steps.with(-1, { ...last, choice }) })
}

/**
 * The first step without an answer: first of the current object, then on the shown frame.
 *
 * @param {Objects} objects
 * @returns {Step | null}
 */
export function unanswered(objects) {
  const entries = [currentOf(objects), ...objects.entries]
  const steps = [...entries.map(lastStep), ...lastSteps(objects)]
  return steps.find((step) => step && !step.answer && !step.pixels) ?? null
}
