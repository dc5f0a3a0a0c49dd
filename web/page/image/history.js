// What undo goes back to, and redo forward: the sets of objects before each change. No DOM in it.

import { atFrame } from './objects.js'

/** @typedef {import('./objects.js').Objects} Objects */

export class History {
  /** @type {Objects[]} */
  past = []
  /** @type {Objects[]} */
  future = []
  /** What the last change was, where several of its kind in a row are one. @type {string | null} */
  kind = null

  /** Keep what was there before a change. @param {Objects} before @param {string | null} [kind] */
  keep(before, kind = null) {
    if (!kind || kind !== this.kind) this.past.push(before)
    this.kind = kind
    this.future = []
  }

  /** @param {Objects} now @returns {Objects} before the last change */
  undo(now) {
    return this.turn(this.past, this.future, now)
  }

  /** @param {Objects} now @returns {Objects} after the change that was undone last */
  redo(now) {
    return this.turn(this.future, this.past, now)
  }

  /** @param {Objects[]} from @param {Objects[]} to @param {Objects} now @returns {Objects} */
  turn(from, to, now) {
    const found = from.pop()
    if (!found) return now
    to.push(atFrame(now, found.frame)) // where the change was made
    this.kind = null
    // An id is never given twice: tracked masks are kept by it.
    return { ...found, ids: Math.max(found.ids, now.ids) }
  }
}
