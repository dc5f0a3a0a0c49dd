// Stores data that is too large for memory or must survive a crash, in the browser's own database.

/** @typedef {'masks' | 'memories' | 'work'} Part */
/**
 * A Map's methods, asynchronous.
 *
 * @typedef {object} Store
 * @property {(key: string) => Promise<any>} get
 * @property {(key: string, value: any) => Promise<void>} set
 * @property {(key: string) => Promise<void>} delete
 * @property {() => Promise<void>} clear
 * @property {() => Promise<string[]>} keys
 */
/** @typedef {{ name: string, masks: Store, work: Store, remove: () => void }} Database */

const PREFIX = 'sequence-'
/** @type {Part[]} */
const PARTS = ['masks', 'memories', 'work']
const VERSION = 2

/**
 * A database for this page only, and the newest database with unsaved work that an ended page left.
 * Other databases of ended pages are removed here, because nothing does that when a page ends.
 *
 * @returns {Promise<Database & { left: Database | null }>}
 */
export async function claimDatabase() {
  if (globalThis.isSecureContext === false) {
    return { name: '', masks: inMemory(), work: inMemory(), remove() {}, left: null }
  }
  const name = PREFIX + crypto.randomUUID()
  /** @type {Database | null} */
  let left = null
  let latest = 0
  try {
    await holds(name)
    for (const { name: other = '' } of await indexedDB.databases()) {
      if (!other.startsWith(PREFIX) || other === name || !(await holds(other))) continue
      const one = await opened(other)
      const state = await one.work.get('state')
      if (!state?.isUnsaved) one.remove()
      else if (state.time > latest) [left, latest] = [one, state.time]
    }
  } catch {
    // A browser without a database; openStore detects that itself.
  }
  return { ...(await opened(name)), left }
}

/** @param {string} name @returns {Promise<Database>} */
async function opened(name) {
  const [masks, work] = [await openStore(name, 'masks'), await openStore(name, 'work')]
  return { name, masks, work, remove: () => void indexedDB.deleteDatabase(name) }
}

/**
 * Hold the lock of a database until this page ends, so that other pages know that it is in use.
 *
 * @param {string} name
 * @returns {Promise<boolean>} whether no other page holds it
 */
const holds = (name) =>
  new Promise((resolve, reject) => {
    const hold = (/** @type {Lock | null} */ lock) => {
      resolve(lock !== null)
      return lock && new Promise(() => {})
    }
    navigator.locks.request(name, { ifAvailable: true }, hold).catch(reject)
  })

/**
 * A part of a database; in memory if the browser has no database.
 *
 * @param {string} name
 * @param {Part} part
 * @returns {Promise<Store>}
 */
export async function openStore(name, part) {
  /** @type {IDBDatabase} */
  let database
  try {
    const request = indexedDB.open(name, VERSION)
    request.onupgradeneeded = () => {
      const { result } = request
      for (const each of PARTS) {
        if (!result.objectStoreNames.contains(each)) result.createObjectStore(each)
      }
    }
    database = await answerTo(request)
    database.onversionchange = () => database.close() // so that it can be removed
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
    keys: async () => {
      const keys = await answerTo(database.transaction(part).objectStore(part).getAllKeys())
      return keys.map(String)
    },
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
    keys: async () => [...kept.keys()],
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
    ? new Error('The browser has no more room for masks: free some disk space, then track on.')
    : new Error(`The browser cannot store masks: ${error?.message ?? 'it gives no reason'}`)
