// The user's settings for how masks look, stored between visits if the browser allows it.

import { PALETTE } from './colors.js'

/**
 * @typedef {object} Look
 * @property {string} color of the first object
 * @property {number} opacity of a mask's inside, 0 to 1
 * @property {boolean} outline whether its edge is drawn
 */

const KEY = 'look'
/** @type {Look} */
const FIRST = { color: PALETTE[0], opacity: 0.45, outline: true }

/**
 * @param {() => Pick<Storage, 'getItem'>} [storage] reading it may throw
 * @returns {Look}
 */
export function storedLook(storage = () => localStorage) {
  try {
    const stored = JSON.parse(storage().getItem(KEY) ?? '{}')
    return {
      color: /^#[0-9a-f]{6}$/.test(stored.color) ? stored.color : FIRST.color,
      opacity: stored.opacity >= 0 && stored.opacity <= 1 ? stored.opacity : FIRST.opacity,
      outline: typeof stored.outline === 'boolean' ? stored.outline : FIRST.outline,
    }
  } catch {
    return FIRST
  }
}

/** @param {Look} look @param {() => Pick<Storage, 'setItem'>} [storage] */
export function storeLook(look, storage = () => localStorage) {
  try {
    storage().setItem(KEY, JSON.stringify(look))
  } catch {
    // Without storage the settings last until the page is closed.
  }
}
