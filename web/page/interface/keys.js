// What a key asks for while the image has the focus. No DOM in it.

/**
 * @typedef {{ move: [number, number] } | { tool: string } | { candidate: number } |
 *   { zoom: number } | { frames: number } | { act: 'place' | 'undo' | 'clear' | 'add' | 'fit' }} Request
 */

/**
 * @typedef {{ key: string, shiftKey: boolean, ctrlKey: boolean, altKey: boolean,
 *   metaKey: boolean }} Press
 */

/** @type {Record<string, [number, number]>} */
const MOVES = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
}
/** @type {Record<string, string>} */
const TOOLS = { f: 'foreground', b: 'background', x: 'box' }
/** How many frames further; all the way to the first and the last. @type {Record<string, number>} */
const FRAMES = {
  ',': -1,
  '.': 1,
  PageUp: -10,
  PageDown: 10,
  Home: -Infinity,
  End: Infinity,
}
/** How much a key zooms. */
export const ZOOM = 1.25

/** Ctrl+Z, or ⌘Z. @param {Press} press */
export const isUndo = ({ key, shiftKey, ctrlKey, altKey, metaKey }) =>
  (ctrlKey || metaKey) && !altKey && !shiftKey && key.toLowerCase() === 'z'

/**
 * @param {Press} press
 * @returns {Request | null} a move in parts of the image
 */
export function requested(press) {
  const { key, shiftKey, ctrlKey, altKey, metaKey } = press
  const lower = key.toLowerCase()
  if (isUndo(press)) return { act: 'undo' }
  if (ctrlKey || metaKey || altKey) return null
  if (key in MOVES) {
    const far = shiftKey ? 0.05 : 0.005
    return { move: [MOVES[key][0] * far, MOVES[key][1] * far] }
  }
  if (lower in TOOLS) return { tool: TOOLS[lower] }
  if (key in FRAMES) return { frames: FRAMES[key] }
  if (/^[1-9]$/.test(key)) return { candidate: Number(key) - 1 }
  if (key === 'Enter') return { act: 'place' }
  if (key === 'Backspace') return { act: 'undo' }
  if (key === 'Escape') return { act: 'clear' }
  if (lower === 'n') return { act: 'add' }
  if (key === '0') return { act: 'fit' }
  if (key === '+' || key === '=') return { zoom: ZOOM }
  if (key === '-' || key === '_') return { zoom: 1 / ZOOM }
  return null
}
