// Maps keys to requests. No DOM.

/**
 * @typedef {{ move: [number, number] } | { tool: string } | { candidate: number } |
 *   { zoom: number } | { frames: number } | { place: 'point' | 'any' } |
 *   { act: 'undo' | 'redo' | 'clear' | 'add' | 'hide' | 'fit' }} Request
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
/** How many frames to move; infinite to reach the first or the last. @type {Record<string, number>} */
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

/** The keys that elements handle themselves, by the kind of element. @type {Record<string, RegExp>} */
const OWN = {
  text: /^/,
  select: /^(?!Escape)/, // letters and digits choose an option
  range: /^(Arrow.*|Page.*|Home|End)$/,
  radio: /^(Arrow.*| )$/,
  other: /^(Enter| )$/,
}

/**
 * Whether an element needs a key for itself.
 *
 * @param {{ tagName: string, type?: string, isContentEditable?: boolean }} element
 * @param {string} key
 */
export function needsKey({ tagName, type = '', isContentEditable }, key) {
  if (tagName === 'BODY' || tagName === 'HTML') return false
  if (tagName === 'SELECT') return OWN.select.test(key)
  if (tagName === 'INPUT' && /^(range|radio)$/.test(type)) return OWN[type].test(key)
  const hasText = tagName === 'INPUT' && !/^(button|checkbox|color|file)$/.test(type)
  const isText = hasText || tagName === 'TEXTAREA' || isContentEditable
  return OWN[isText ? 'text' : 'other'].test(key)
}

/**
 * @param {Press} press
 * @returns {Request | null} a move is in parts of the image
 */
export function requested(press) {
  const { key, shiftKey, ctrlKey, altKey, metaKey } = press
  const lower = key.toLowerCase()
  if ((ctrlKey || metaKey) && !altKey) {
    if (lower === 'z') return { act: shiftKey ? 'redo' : 'undo' }
    if (lower === 'y' && !shiftKey) return { act: 'redo' }
  }
  if (ctrlKey || metaKey || altKey) return null
  if (key in MOVES) {
    const far = shiftKey ? 0.05 : 0.005
    return { move: [MOVES[key][0] * far, MOVES[key][1] * far] }
  }
  if (lower in TOOLS) return { tool: TOOLS[lower] }
  if (key in FRAMES) return { frames: FRAMES[key] }
  if (/^[1-9]$/.test(key)) return { candidate: Number(key) - 1 }
  if (key === 'Enter') return { place: shiftKey ? 'point' : 'any' }
  if (key === 'Backspace') return { act: 'undo' }
  if (key === 'Escape') return { act: 'clear' }
  if (lower === 'n') return { act: 'add' }
  if (lower === 'h') return { act: 'hide' }
  if (key === '0') return { act: 'fit' }
  if (key === '+' || key === '=') return { zoom: ZOOM }
  if (key === '-' || key === '_') return { zoom: 1 / ZOOM }
  return null
}
