// The sets of objects that undo and redo return to. No DOM.

import { atFrame } from './objects.js'

/** @typedef {import('./objects.js').Objects} Objects */

export class History {
  /** @type {Objects[]} */
  past = []
  /** @type {Objects[]} */
  future = []
  /** The kind of the last change, if successive changes of it are one step. @type {string | null} */
  kind = null

  /** Store the set before a change. @param {Objects} before @param {string | null} [kind] */
  keep(before, kind = null) {
    if (!kind || kind !== this.kind) this.past.push(before)
    this.kind = kind
    this.future = []
  }

  /** @param {Objects} now @returns {Objects} before the last change */
  undo(now) {
    return this.turn(this.past, this.future, now)
  }

  /** @param {Objects} now @returns {Objects} after the change undone last */
  redo(now) {
    return this.turn(this.future, this.past, now)
  }

  /** @param {Objects[]} from @param {Objects[]} to @param {Objects} now @returns {Objects} */
  turn(from, to, now) {
    const then = from.pop()
    if (!then) return now
    to.push(atFrame(now, then.frame)) // where the change was made
    this.kind = null
    // No id is used twice, because tracked masks are stored by id.
    return { ...then, ids: Math.max(then.ids, now.ids) }
  }
}
