// The objects of what is open and their prompts: each change makes a new set (image/objects.js).

import { unusedColor } from '../image/colors.js'
import * as set from '../image/objects.js'
import { currentOf, lastStep, titleOf } from '../image/objects.js'
import { ui } from './elements.js'
import { say, settle } from './messages.js'

/** @typedef {import('../image/objects.js').Objects} Objects */
/** @typedef {import('../image/objects.js').Step} Step */
/** @typedef {import('../image/view.js').At} At */

export class Prompting {
  /** @param {import('../page.js').Page} page */
  constructor(page) {
    this.page = page
    this.objects = set.started(page.look.look.color)
    ui.undo.onclick = () => this.undo()
    ui.clear.onclick = () => this.clear()
    ui.add.onclick = ui.addHere.onclick = () => this.addObject()
  }

  restart() {
    this.objects = set.started(this.page.look.look.color)
  }

  /** The step that is shown of the current object. */
  get step() {
    return lastStep(currentOf(this.objects))
  }

  /** Let the decoder answer all prompts anew: another model has other answers. */
  dropAnswers() {
    for (const step of set.allSteps(this.objects)) Object.assign(step, { answer: null, choice: null })
  }

  /** @param {number} frame whose picture is there */
  showFrame(frame) {
    this.objects = set.atFrame(this.objects, frame)
    this.page.cursor.dropBox()
    this.page.display.refresh()
  }

  // The prompts of the current object.

  /** @param {Partial<import('../shared/preprocessing.js').Prompt>} change */
  prompt(change) {
    const { page } = this
    if (!page.canPrompt) return
    settle('image', 'work')
    page.everything.shown = null
    const isRefined =
      page.sequence.answers(page.model.current) || (ui.refine.checked && !ui.refine.disabled)
    const before = this.step
    const prompt = { points: [], box: null, ...before?.prompt, ...change }
    const where = page.views.whereOf(prompt, before)
    const refined = isRefined ? before : null
    this.objects = set.prompted(this.objects, prompt, refined, performance.now(), where)
    void page.decoding.run()
    page.display.scene.draw() // the point, before its mask
  }

  /** @param {At} at in image parts @param {boolean} foreground */
  addPoint(at, foreground) {
    this.prompt({ points: [...(this.step?.prompt.points ?? []), { ...this.pixels(at), foreground }] })
  }

  /** @param {At} from @param {At} to in image parts */
  setBox(from, to) {
    const [one, other] = [this.pixels(from), this.pixels(to)]
    this.prompt({ box: [one.x, one.y, other.x, other.y] })
  }

  /** @param {At} at in image parts @returns {At} in pixels of the image */
  pixels({ x, y }) {
    const { width, height } = this.page.image.current ?? { width: 0, height: 0 }
    return { x: x * width, y: y * height }
  }

  /**
   * Say that the object is not on the frame that is shown, or on none behind or before it; said again,
   * that is taken back.
   *
   * @param {keyof import('../image/objects.js').Gone} where
   */
  leave(where) {
    if (!this.page.canPrompt) return
    this.change(set.left(this.objects, where, performance.now()))
    const { gone } = /** @type {Step} */ (currentOf(this.objects).steps.at(-1))
    const title = titleOf(currentOf(this.objects))
    const ends = { here: 'is not on this frame', after: 'ends here', before: 'begins here' }
    say(gone?.[where] ? `${title} ${ends[where]}.` : `${title} may be there again.`)
  }

  undo() {
    if (ui.prompting.disabled || ui.undo.disabled) return
    settle('image', 'work')
    const { page } = this
    page.cursor.dropBox()
    const deletions = this.objects.deletions.length
    if (page.everything.shown) page.everything.shown = null
    else this.objects = set.undone(this.objects)
    say(this.step ? 'Undone.' : 'No prompt.')
    void page.decoding.run()
    if (this.objects.deletions.length < deletions) {
      say(`${titleOf(currentOf(this.objects))} is back.`)
    }
  }

  /** Give up what is begun or shown in place of the objects; else clear the current object. */
  clear() {
    const { page } = this
    if (!page.image.place) return
    if (page.isBusy) {
      page.cancel()
    } else if (page.cursor.corner || page.everything.shown) {
      this.change(this.objects)
    } else {
      this.change(set.cleared(this.objects, performance.now()))
      say('Cleared.')
    }
  }

  /** Show another of the masks that the decoder drew. @param {number} index */
  chooseMask(index) {
    const { step } = this
    if (ui.save.disabled || !step?.answer || index >= step.answer.scores.length) return
    const focused = ui.candidates.contains(document.activeElement)
    step.choice = index
    this.page.display.refresh()
    if (focused) ui.candidates.querySelectorAll('input')[index].focus()
  }

  // The set of objects.

  /** @param {Objects} changed */
  change(changed) {
    this.objects = changed
    this.page.cursor.dropBox()
    this.page.everything.shown = null
    settle('image', 'work')
    this.page.display.refresh()
  }

  addObject() {
    if (!this.page.canPrompt) return
    const color = unusedColor(this.objects.entries.map((entry) => entry.color))
    this.change(set.added(this.objects, color))
    say(`${titleOf(currentOf(this.objects))}: click what to segment.`)
  }

  /** @param {number} number */
  choose(number) {
    const { search, shown } = this.page.everything
    if (search) this.page.display.showObjects() // the browser has checked it
    else if (number !== this.objects.current || shown) this.change(set.chosen(this.objects, number))
  }

  /** @param {number} number @param {string} name */
  rename(number, name) {
    this.objects = set.changed(this.objects, number, { name })
    this.page.display.showObjects()
  }

  /** @param {number} number @param {string} color */
  recolor(number, color) {
    this.page.look.change({ color })
    this.objects = set.changed(this.objects, number, { color })
    this.page.display.refresh()
  }

  /** @param {number} number @param {boolean} isTracked whether it is tracked with the others */
  follow(number, isTracked) {
    this.objects = set.changed(this.objects, number, { stays: !isTracked })
  }

  /** @param {number} number */
  remove(number) {
    if (this.page.isBusy) return
    const entry = this.objects.entries.find((one) => one.number === number)
    if (!entry) return
    this.change(set.removed(this.objects, number, performance.now()))
    this.page.display.list.focus(this.objects.current)
    say(`${titleOf(entry)} is deleted.${entry.steps.length ? ' Undo brings it back.' : ''}`)
  }
}
