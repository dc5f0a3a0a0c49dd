// The objects of what is open and their prompts: each change makes a new set (image/objects.js).

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

  /** The step that is shown of the current object. */
  get step() {
    return lastStep(currentOf(this.objects))
  }

  /** Let the decoder answer all prompts anew: another model has other answers. */
  dropAnswers() {
    for (const objects of [this.objects, ...this.history.past, ...this.history.future]) {
      for (const step of set.allSteps(objects)) Object.assign(step, { answer: null, choice: null })
    }
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
    const isRefined =
      page.sequence.answers(page.model.current) || (ui.refine.checked && !ui.refine.disabled)
    const before = this.step
    const prompt = { points: [], box: null, ...before?.prompt, ...change }
    // A mask from a file has no prompt that could be answered again: it stays what is corrected.
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
   * Set a point of the chosen kind; or choose another object, where its mask is and that of the
   * current is not. An object that is new has no mask yet: its first point is set anywhere.
   *
   * @param {At} at in image parts
   * @param {boolean} isForced whether a point is set in any case
   */
  point(at, isForced) {
    const other = tool() === 'foreground' && !isForced ? this.otherAt(at) : null
    if (other === null) {
      this.addPoint(at, tool() === 'foreground')
      return
    }
    this.choose(other)
    const title = titleOf(currentOf(this.objects))
    say(`${title} is chosen. Shift and click sets a point on another object's mask.`)
  }

  /** @param {At} at in image parts @returns {number | null} of the smallest object there */
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
   * Say that the object is not on the frame that is shown, or on none behind or before it; said again,
   * that is taken back.
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

  /** @param {'undo' | 'redo'} way to go through the changes, whichever object they were of */
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

  /** Give up what is begun; else clear the current object. */
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
   * Take a changed set, so that undo goes back to the one before.
   *
   * @param {Objects} changed
   * @param {string} [kind] several of a kind in a row are undone at once
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

  /** Both. @param {Objects} changed @param {string} [kind] */
  act(changed, kind) {
    this.keep(changed, kind)
    this.change(changed)
  }

  /**
   * Take objects that have their masks already.
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
    if (this.page.everything.search) this.page.display.showObjects() // the browser has checked it
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

  /** @param {number} number @param {boolean} isTracked whether it is tracked with the others */
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
