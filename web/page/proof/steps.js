// What the pages of the browser's proof share: steps that are timed, logged and answered as text.

import { adapter, fetchFile } from '../shared/model.js'

/** @typedef {import('../shared/feeds.js').Values} Values */

/** Where the server has the model. */
export const BASE = '/model'

/** Where a page runs, and what it is to load: `[manifest, answer]` of the step "environment". */
export async function readEnvironment() {
  /** @type {import('../shared/contract.js').Manifest & { dtype?: any }} */
  const manifest = await (await fetch(`${BASE}/manifest.json`)).json()
  const found = await adapter().catch(() => null)
  return /** @type {const} */ ([manifest, { isolated: crossOriginIsolated, adapter: found }])
}

/**
 * A part's file, and how many milliseconds it took to come.
 *
 * @param {import('../shared/contract.js').Manifest} manifest
 * @param {string} part the graph's name
 */
export function loadPart(manifest, part) {
  const file =
    part === 'encoder' || part === 'decoder' ? manifest[part].file : manifest.video?.files[part]
  if (!file) throw new Error(`manifest.json names no file of ${part}`)
  return timed(() => fetchFile(`${BASE}/${file}`, manifest.files[file], () => {}))
}

/** @template T @param {() => Promise<T>} work @returns {Promise<[T, number]>} and milliseconds */
export async function timed(work) {
  const start = performance.now()
  const result = await work()
  return [result, performance.now() - start]
}

/** @type {string[] | null} */
let log = null
const write = console.error
// Replaced here, as onnxruntime-web logs to the console.error that there is when it starts.
console.error = (...parts) => (log ? log.push(parts.join(' ')) : write(...parts))

/**
 * What onnxruntime-web logs meanwhile, kept from the console.
 *
 * @param {() => Promise<unknown>} work
 * @returns {Promise<string[]>}
 */
export async function logged(work) {
  const lines = (log = /** @type {string[]} */ ([]))
  try {
    await work()
  } finally {
    log = null
  }
  return lines
}

/**
 * Values as JSON has them.
 *
 * @param {{ data: Float32Array | Float32Array[], dims: readonly number[] }} values arrays after one
 *   another
 * @returns {Promise<{ base64: string, dims: readonly number[] }>}
 */
export async function packed({ data, dims }) {
  const url = await new Promise((resolve) => {
    const reader = new FileReader()
    reader.onload = () => resolve(reader.result)
    reader.readAsDataURL(new Blob(/** @type {BlobPart[]} */ ([data].flat())))
  })
  return { base64: /** @type {string} */ (url).split(',')[1], dims }
}

/** @param {Record<string, Values>} values */
export async function allPacked(values) {
  const entries = Object.entries(values).map(async ([name, each]) => [name, await packed(each)])
  return Object.fromEntries(await Promise.all(entries))
}

/**
 * Offer steps to who drives the page, as `window.check({ step, ...arguments })`. An error is
 * returned in its own words.
 *
 * @param {Record<string, (job: any) => Promise<unknown>>} steps
 */
export function offer(steps) {
  /** @param {{ step: string }} job */
  const check = async (job) => {
    try {
      return await steps[job.step](job)
    } catch (error) {
      return { error: error instanceof Error ? error.message : String(error) }
    }
  }
  Object.assign(window, { check })
}
