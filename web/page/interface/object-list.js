// The list of objects in the panel.

import { titleOf } from '../image/objects.js'

/**
 * @typedef {object} Row
 * @property {HTMLLIElement} row
 * @property {HTMLInputElement} choice
 * @property {HTMLInputElement} color
 * @property {HTMLInputElement} name
 * @property {HTMLElement} area
 * @property {HTMLButtonElement} remove
 * @property {HTMLInputElement} tracked
 */
/**
 * @typedef {object} Handlers
 * @property {(number: number) => void} choose
 * @property {(number: number, name: string) => void} rename
 * @property {(number: number, color: string) => void} recolor
 * @property {(number: number) => void} remove
 * @property {(number: number, isTracked: boolean) => void} follow
 */

export class ObjectList {
  /** @param {HTMLElement} list @param {Handlers} handlers */
  constructor(list, handlers) {
    this.list = list
    this.handlers = handlers
    /** Rows are reused, so that a focused element keeps the focus. @type {Map<number, Row>} */
    this.rows = new Map()
    /** The number of the current object. */
    this.current = 0
  }

  /**
   * @param {import('../image/objects.js').Objects} objects
   * @param {(entry: import('../image/objects.js').Entry) => string} areaOf
   */
  show({ entries, current }, areaOf) {
    for (const [number, { row }] of this.rows) {
      if (entries.some((entry) => entry.number === number)) continue
      row.remove()
      this.rows.delete(number)
    }
    for (const [index, entry] of entries.entries()) {
      const parts = this.rows.get(entry.number) ?? this.insert(entry.number, index)
      const title = titleOf(entry)
      parts.row.classList.toggle('current', entry.number === current)
      parts.choice.checked = entry.number === current
      parts.choice.ariaLabel = `Work on ${title}`
      parts.color.value = entry.color
      parts.color.ariaLabel = `Colour of ${title}`
      if (parts.name.value !== entry.name) parts.name.value = entry.name
      parts.area.textContent = areaOf(entry)
      parts.tracked.checked = !entry.stays
      parts.tracked.ariaLabel = parts.tracked.title = `Track ${title}`
      parts.remove.ariaLabel = parts.remove.title = `Delete ${title}`
    }
    if (current !== this.current) this.reveal(current)
    this.current = current
  }

  /** Scroll only the list until a row is visible. @param {number} number */
  reveal(number) {
    const { list } = this
    const { row } = /** @type {Row} */ (this.rows.get(number))
    const top = row.offsetTop - list.offsetTop
    const isAbove = top < list.scrollTop
    const isBelow = top + row.offsetHeight > list.scrollTop + list.clientHeight
    if (isAbove || isBelow) list.scrollTop = top
  }

  /** @param {number} number @param {number} index @returns {Row} */
  insert(number, index) {
    const { handlers } = this
    const row = document.createElement('li')
    const choice = input('radio', 'choice')
    choice.name = 'object'
    choice.onchange = () => handlers.choose(number)
    const shown = document.createElement('span')
    shown.className = 'number'
    shown.textContent = String(number)
    const color = input('color', 'swatch')
    color.setAttribute('list', 'palette')
    color.onchange = () => handlers.recolor(number, color.value)
    const name = input('text', 'name')
    name.placeholder = `Object ${number}`
    name.ariaLabel = `Name of object ${number}`
    name.maxLength = 60
    name.autocomplete = 'off'
    name.oninput = () => handlers.rename(number, name.value)
    name.onfocus = () => handlers.choose(number)
    const area = document.createElement('span')
    area.className = 'area'
    const remove = document.createElement('button')
    remove.type = 'button'
    remove.className = 'remove'
    remove.textContent = '×'
    remove.onclick = () => handlers.remove(number)
    const tracked = input('checkbox', 'tracked')
    tracked.onchange = () => handlers.follow(number, tracked.checked)
    row.append(choice, shown, color, name, area, tracked, remove)
    this.list.insertBefore(row, this.list.children[index] ?? null)
    const parts = { row, choice, color, name, area, tracked, remove }
    this.rows.set(number, parts)
    return parts
  }

  /** @param {number} number */
  focus(number) {
    this.rows.get(number)?.choice.focus()
  }
}

/** @param {string} type @param {string} className */
function input(type, className) {
  const made = document.createElement('input')
  made.type = type
  made.className = className
  return made
}
