// The user's work: whether it is saved, and its copy in the browser's database, from which the page
// restores it after a crash.

import { maskOf } from '../image/masks.js'
import { atFrame, lastSteps } from '../image/objects.js'
import { packed } from '../image/pixel-mask.js'
import { ui } from './elements.js'
import { complain, hideProgress, say, showProgress, words } from './messages.js'

/** @typedef {import('../frames/database.js').Database} Database */
/** @typedef {import('../image/objects.js').Objects} Objects */
/** @typedef {import('../image/objects.js').Step} Step */
/**
 * The stored work. Tracked masks are in a separate part of the database.
 *
 * @typedef {object} State
 * @property {number} time
 * @property {boolean} isUnsaved
 * @property {string} what a description for people
 * @property {string} model
 * @property {string[]} planes the shown slice and channels
 * @property {Objects} objects
 */

const PLANES = [ui.slice, ui.channel, ui.redChannel, ui.greenChannel, ui.blueChannel]

export class Work {
  /** The number of changes. */
  changes = 0
  /** The number of changes that are saved. */
  savedChanges = 0
  /** The open files. @type {File[]} */
  files = []
  /** Whether the database has these files. */
  hasFiles = false
  /** Resolves when the last write ends. @type {Promise<unknown>} */
  writing = Promise.resolve()

  /** @param {import('../page.js').Page} page */
  constructor(page) {
    this.page = page
    addEventListener('beforeunload', (event) => {
      if (this.isUnsaved) event.preventDefault()
    })
  }

  get isUnsaved() {
    return this.changes !== this.savedChanges && this.count > 0
  }

  /** The number of objects. */
  get count() {
    const { prompting, sequence } = this.page
    const { entries } = prompting.objects
    const prompted = new Set(lastSteps(prompting.objects).map(({ id }) => id))
    const others = entries.filter(({ isOpened, id }) => isOpened && !prompted.has(id)).length
    return prompted.size + others || Number(sequence.masks.frames.size > 0)
  }

  /** The work, described for people. */
  get what() {
    const objects = this.count === 1 ? 'One object' : `${this.count} objects`
    return `${objects} on ${this.page.image.current?.file}`
  }

  /** Start with a newly opened image. @param {File[]} files */
  opened(files) {
    this.files = files
    this.hasFiles = false
    this.settle()
  }

  /** Note a change that is not saved yet. */
  change() {
    this.changes++
    this.write()
  }

  /** Note that everything is saved. */
  settle() {
    this.savedChanges = this.changes
    this.write()
  }

  /** Save everything. @template T @param {() => Promise<T>} save */
  async saved(save) {
    const { changes } = this
    const result = await save()
    this.savedChanges = changes
    this.write()
    return result
  }

  /**
   * Ask the user before unsaved work is lost.
   *
   * @param {string} reason a sentence about what discards the work
   * @returns {Promise<boolean>} whether the work may be lost
   */
  async mayGo(reason) {
    if (!this.isUnsaved) return true
    return (await ask(`Not saved: ${this.what}. ${reason}`, 'Keep working', 'Discard')) === 'discard'
  }

  /** Write the work to the database, after earlier writes. */
  write() {
    const { isUnsaved, what } = this
    const { objects } = this.page.prompting
    const { current } = this.page.image
    if (!current) return
    const planes = PLANES.map(({ value }) => value)
    const [time, model] = [Date.now(), ui.model.value]
    /** @type {State} */
    const state = { time, isUnsaved, what, model, planes, objects: bare(objects, current) }
    this.writing = this.writing.then(async () => {
      const { work } = await this.page.sequence.database
      try {
        if (isUnsaved && !this.hasFiles) await work.set('files', this.files)
        this.hasFiles ||= isUnsaved
        await work.set('state', state)
      } catch (error) {
        say(`Save soon: the browser cannot keep a copy of your objects. ${words(error)}`)
      }
    })
  }

  /** Offer to restore the work of a page that ended without saving. */
  async restore() {
    const { left } = await this.page.sequence.database
    if (!left) return
    /** @type {State} */
    const state = await left.work.get('state')
    const when = new Date(state.time).toLocaleString()
    const question = `Not saved when this page ended (${when}): ${state.what}.`
    const answer = await ask(question, 'Restore', 'Discard')
    try {
      if (answer !== 'discard') await this.resume(left, state)
      left.remove()
    } catch (error) {
      complain('image', `The unsaved work cannot be restored.\n${words(error)}`)
    }
    hideProgress()
  }

  /** @param {Database} left @param {State} state */
  async resume(left, state) {
    const { image, model, prompting, sequence } = this.page
    const isDeployed = [...ui.model.options].some(({ value }) => value === state.model)
    if (isDeployed && state.model !== ui.model.value) {
      ui.model.value = state.model
      await model.open()
    }
    await image.open(await left.work.get('files'))
    if (!ui.planes.hidden) {
      for (const [index, value] of state.planes.entries()) PLANES[index].value = value
      this.page.planes.chooseSlice()
      this.page.planes.chooseChannels()
    }
    const frames = await left.masks.keys()
    for (const [index, frame] of frames.entries()) {
      showProgress('Restoring', index, frames.length, 'frames')
      await sequence.masks.add(Number(frame), await left.masks.get(frame))
    }
    prompting.act(atFrame(state.objects, prompting.objects.frame))
    sequence.scrub(state.objects.frame)
    await sequence.reload()
    await this.page.decoding.run()
    await this.writing
    say(`Restored: ${state.what}.`)
  }
}

/**
 * Ask in a dialog. Escape means the first answer, which loses nothing.
 *
 * @param {string} question
 * @param {string} keep
 * @param {string} discard
 * @returns {Promise<string>} `keep` or `discard`
 */
function ask(question, keep, discard) {
  ui.questionText.textContent = question
  ui.keep.textContent = keep
  ui.discard.textContent = discard
  ui.question.returnValue = 'keep'
  ui.question.showModal()
  return new Promise((resolve) => {
    ui.question.onclose = () => resolve(ui.question.returnValue)
  })
}

/** @type {WeakMap<object, import('../image/pixel-mask.js').Pixels>} by mask */
const pixels = new WeakMap()

/**
 * The objects with each mask's pixels instead of the model's answer: another model, or other
 * channels, may give another answer.
 *
 * @param {Objects} objects
 * @param {import('../image/view.js').Size} image
 * @returns {Objects}
 */
function bare(objects, image) {
  /** @param {Step} step @returns {Step} */
  const without = (step) => ({
    ...step,
    refines: step.refines && without(step.refines),
    around: step.around && without(step.around),
    answer: null,
  })
  /** @param {Step} step @returns {Step} */
  const kept = (step) => {
    const mask = maskOf(step)
    if (mask && !pixels.has(mask)) pixels.set(mask, packed(mask.over(image), image))
    return mask ? { ...without({ ...step, around: null }), pixels: pixels.get(mask) } : without(step)
  }
  const last = (/** @type {readonly Step[]} */ steps) => steps.slice(-1).map(kept)
  const entries = objects.entries.map((entry) => {
    const elsewhere = new Map([...entry.elsewhere].map(([frame, steps]) => [frame, last(steps)]))
    return { ...entry, steps: last(entry.steps), elsewhere }
  })
  return { ...objects, entries }
}
