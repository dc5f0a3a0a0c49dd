// What is too much for memory, kept in the browser's own database while the page is open.

/** @typedef {'masks' | 'memories'} Part */
/**
 * A Map's methods, answered later.
 *
 * @typedef {object} Store
 * @property {(key: string) => Promise<any>} get
 * @property {(key: string, value: any) => Promise<void>} set
 * @property {(key: string) => Promise<void>} delete
 * @property {() => Promise<void>} clear
 */

const PREFIX = 'sequence-'
/** @type {Part[]} */
const PARTS = ['masks', 'memories']

/**
 * The name of a database for this page alone. Those of pages that were left are removed: nothing
 * does that when a page ends.
 *
 * @returns {Promise<string>}
 */
export async function claimDatabase() {
  const name = PREFIX + crypto.randomUUID()
  try {
    // A lock that is never given back tells other pages that this one is still there.
    await new Promise((held) => {
      void navigator.locks.request(name, () => new Promise(() => held(null)))
    })
    const { held = [] } = await navigator.locks.query()
    for (const { name: other = '' } of await indexedDB.databases()) {
      const isLeft = other.startsWith(PREFIX) && !held.some((lock) => lock.name === other)
      if (isLeft) indexedDB.deleteDatabase(other)
    }
  } catch {
    // A browser that keeps nothing: openStore finds out by itself.
  }
  return name
}

/**
 * A part of a database; in memory where the browser keeps none.
 *
 * @param {string} name
 * @param {Part} part
 * @returns {Promise<Store>}
 */
export async function openStore(name, part) {
  /** @type {IDBDatabase} */
  let database
  try {
    const request = indexedDB.open(name, 1)
    request.onupgradeneeded = () => PARTS.forEach((each) => request.result.createObjectStore(each))
    database = await answerTo(request)
  } catch {
    return inMemory()
  }
  /** @template T @param {(store: IDBObjectStore) => IDBRequest<T>} change */
  const written = (change) =>
    new Promise((resolve, reject) => {
      const transaction = database.transaction(part, 'readwrite')
      change(transaction.objectStore(part))
      transaction.oncomplete = () => resolve(undefined)
      transaction.onabort = () => reject(noRoom(transaction.error))
    })
  return {
    get: (key) => answerTo(database.transaction(part).objectStore(part).get(key)),
    set: (key, value) => written((store) => store.put(value, key)),
    delete: (key) => written((store) => store.delete(key)),
    clear: () => written((store) => store.clear()),
  }
}

/** @returns {Store} */
function inMemory() {
  /** @type {Map<string, any>} */
  const kept = new Map()
  return {
    get: async (key) => kept.get(key),
    set: async (key, value) => void kept.set(key, value),
    delete: async (key) => void kept.delete(key),
    clear: async () => kept.clear(),
  }
}

/** @template T @param {IDBRequest<T>} request @returns {Promise<T>} */
const answerTo = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result)
    request.onerror = () => reject(request.error)
  })

/** @param {DOMException | null} error */
const noRoom = (error) =>
  error?.name === 'QuotaExceededError'
    ? new Error('The browser has no more room for masks: free some of the disk, then track on.')
    : new Error(`The browser cannot keep masks: ${error?.message ?? 'it gives no reason'}`)
