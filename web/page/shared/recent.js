// Keeps the values used last. No DOM.

/** @template T */
export class Recent {
  /** @param {number} limit the number of values to keep */
  constructor(limit) {
    this.limit = limit
    /** The newest is last. @type {Map<number, T>} */
    this.kept = new Map()
  }

  /** @param {number} key @returns {T | undefined} */
  get(key) {
    const value = this.kept.get(key)
    if (value !== undefined) this.set(key, value)
    return value
  }

  /** @param {number} key @param {T} value */
  set(key, value) {
    this.kept.delete(key)
    this.kept.set(key, value)
    for (const [oldest] of this.kept) {
      if (this.kept.size <= this.limit) break
      this.kept.delete(oldest)
    }
  }

  /** @param {number} key */
  delete(key) {
    this.kept.delete(key)
  }

  clear() {
    this.kept.clear()
  }
}
