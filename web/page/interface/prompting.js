// The objects of the open image and their prompts: each change makes a new set (image/objects.js).

import { colorOf, unusedColor } from '../image/colors.js'
import { History } from '../image/history.js'
import { covers } from '../image/masks.js'
import * as set from '../image/objects.js'
import { currentOf, lastStep, titleOf } from '../image/objects.js'
import { tool, ui } from './elements.js'
import { say, settle } from './messages.js'

/** @typedef {import('../image/objects.js').Objects} Objects */
/** @typedef {import('../image/objects.js').Step} Step */
/** @typedef {import('../image/view.js').At} At */

export class Prompting {
  /** @param {import('../page.js').Page} page */
  constructor(page) {
    this.page = page
    this.objects = set.started(page.look.look.color)
    this.history = new History()
    ui.undo.onclick = () => this.turn('undo')
    ui.redo.onclick = () => this.turn('redo')
    ui.clear.onclick = () => this.clear()
    ui.add.onclick = ui.addHere.onclick = () => this.addObject()
  }

  restart() {
    this.objects = set.started(this.page.look.look.color)
    this.history = new History()
  }

  /** The shown step of the current object. */
  get step() {
    return lastStep(currentOf(this.objects))
  }

  /** Drop all answers, so that prompts are decoded again: another model has other answers. */
  dropAnswers() {
    for (const objects of [this.objects, ...this.history.past, ...this.history.future]) {
      for (const step of set.allSteps(objects)) Object.assign(step, { answer: null, choice: null })
    }
  }

  /** @param {number} frame whose picture is loaded */
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
    const isRefined =
      page.sequence.answers(page.model.current) || (ui.refine.checked && !ui.refine.disabled)
    const before = this.step
    const prompt = { points: [], box: null, ...before?.prompt, ...change }
    // A mask from a file has no prompt to answer again, so further prompts correct the mask.
    const opened = [before, before?.refines].find((step) => step?.pixels) ?? null
    const refines = isRefined ? before : opened
    const where = page.views.whereOf(prompt, before)
    this.keep(set.prompted(this.objects, prompt, refines, performance.now(), where))
    page.look.showMasks()
    void page.decoding.run()
    page.display.scene.draw() // the point, before its mask
  }

  /** @param {At} at in image parts @param {boolean} foreground */
  addPoint(at, foreground) {
    this.prompt({ points: [...(this.step?.prompt.points ?? []), { ...this.pixels(at), foreground }] })
  }

  /**
   * Set a point of the chosen kind; or choose another object, if its mask covers the point and the
   * current object's mask does not. A new object has no mask yet: its first point is always set.
   *
   * @param {At} at in image parts
   * @param {boolean} isForced whether to set a point in any case
   */
  point(at, isForced) {
    const other = tool() === 'foreground' && !isForced ? this.otherAt(at) : null
    if (other === null) {
      this.addPoint(at, tool() === 'foreground')
      return
    }
    this.choose(other)
    const title = titleOf(currentOf(this.objects))
    say(`${title} is chosen. Shift and click to set a point on another object's mask.`)
  }

  /** @param {At} at in image parts @returns {number | null} the number of the smallest object there */
  otherAt(at) {
    const { display, image, look } = this.page
    if (!image.current || !look.hasMasks || set.isUnused(currentOf(this.objects))) return null
    const size = image.current
    const there = display.shownMasks.filter(({ mask }) => covers(mask, at, size))
    if (there.some(({ number }) => number === this.objects.current)) return null
    there.sort((one, other) => one.mask.share - other.mask.share)
    return there[0]?.number ?? null
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
   * Mark the object as absent on the shown frame, or on all frames after or before it; a second call
   * removes the mark.
   *
   * @param {keyof import('../image/objects.js').Gone} where
   */
  leave(where) {
    if (!this.page.canPrompt) return
    this.act(set.left(this.objects, where, performance.now()))
    const { gone } = /** @type {Step} */ (currentOf(this.objects).steps.at(-1))
    const title = titleOf(currentOf(this.objects))
    const ends = { here: 'is not on this frame', after: 'ends here', before: 'begins here' }
    say(gone?.[where] ? `${title} ${ends[where]}.` : `${title} may be there again.`)
  }

  /** @param {'undo' | 'redo'} way to go through the changes of all objects */
  turn(way) {
    if (ui.prompting.disabled || ui[way].disabled) return
    settle('image', 'work')
    const { page, objects } = this
    page.cursor.dropBox()
    const turned = this.history[way](objects)
    this.objects = set.atFrame(turned, objects.frame)
    page.sequence.scrub(turned.frame) // where the change was made
    page.work.change()
    page.display.refresh()
    void page.decoding.run()
    const back = turned.entries.filter(({ id }) => objects.entries.every((each) => each.id !== id))
    const [only] = back
    const done = way === 'undo' ? 'Undone' : 'Done again'
    say(back.length === 1 && way === 'undo' ? `${titleOf(only)} is back.` : `${done}.`)
  }

  /** Cancel what is in progress; else clear the current object. */
  clear() {
    const { page } = this
    if (!page.image.place) return
    if (page.isBusy) page.cancel()
    else if (page.cursor.corner) this.change(this.objects)
    else {
      this.act(set.cleared(this.objects, performance.now()))
      say('Cleared.')
    }
  }

  /** Show another of the masks that the decoder drew. @param {number} index */
  chooseMask(index) {
    const { step } = this
    if (ui.save.disabled || !step?.answer || index >= step.answer.scores.length) return
    const focused = ui.candidates.contains(document.activeElement)
    this.keep(set.withChoice(this.objects, index))
    this.page.display.refresh()
    if (focused) ui.candidates.querySelectorAll('input')[index].focus()
  }

  // The set of objects.

  /**
   * Replace the set by a changed one; undo returns to the set before.
   *
   * @param {Objects} changed
   * @param {string} [kind] successive changes of one kind are undone together
   */
  keep(changed, kind) {
    if (changed === this.objects) return
    this.history.keep(this.objects, kind)
    this.objects = changed
    this.page.work.change()
  }

  /** Show another set. @param {Objects} changed */
  change(changed) {
    this.objects = changed
    this.page.cursor.dropBox()
    settle('image', 'work')
    this.page.display.refresh()
  }

  /** Keep and show a changed set. @param {Objects} changed @param {string} [kind] */
  act(changed, kind) {
    this.keep(changed, kind)
    this.change(changed)
  }

  /**
   * Add objects that already have masks.
   *
   * @param {Objects} before
   * @param {import('../image/objects.js').Further[]} further
   * @param {string} [kind]
   */
  join(before, further, kind) {
    this.act(set.joined(before, further, colorOf), kind)
  }

  addObject() {
    if (!this.page.canPrompt) return
    const color = unusedColor(this.objects.entries.map((entry) => entry.color))
    this.act(set.added(this.objects, color))
    say(`${titleOf(currentOf(this.objects))}: click what to segment.`)
  }

  /** @param {number} number */
  choose(number) {
    if (this.page.everything.search) this.page.display.showObjects() // undoes the browser's check
    else if (number !== this.objects.current) this.change(set.chosen(this.objects, number))
  }

  /** @param {number} number @param {string} name */
  rename(number, name) {
    this.keep(set.changed(this.objects, number, { name }), `name ${number}`)
    this.page.display.enable()
  }

  /** @param {number} number @param {string} color */
  recolor(number, color) {
    this.page.look.change({ color })
    this.act(set.changed(this.objects, number, { color }))
  }

  /** @param {number} number @param {boolean} isTracked whether the object is tracked */
  follow(number, isTracked) {
    this.act(set.changed(this.objects, number, { stays: !isTracked }))
  }

  /** @param {number} number */
  remove(number) {
    if (this.page.isBusy) return
    const entry = this.objects.entries.find((one) => one.number === number)
    if (!entry) return
    const before = this.objects
    this.act(set.removed(before, number))
    this.page.display.list.focus(this.objects.current)
    if (this.objects !== before) say(`${titleOf(entry)} is deleted. Undo brings it back.`)
  }
}
