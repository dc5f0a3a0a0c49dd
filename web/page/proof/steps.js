// What the pages of the browser's proof share: steps that are timed, logged and answered as text.

import { timed } from '../shared/model.js'
import { words } from '../shared/words.js'

/** @typedef {import('../shared/feeds.js').Answers} Answers */
/** @typedef {import('../shared/feeds.js').Values} Values */

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
 * Run the decoder some times.
 *
 * @param {number} runs
 * @param {() => Promise<Answers>} decode
 * @returns {Promise<[Answers, { times: number[], values: object }]>} what it answers last, and what the
 *   step "decode" returns of it
 */
export async function decodeRuns(runs, decode) {
  const times = []
  let answers = /** @type {Answers} */ ({})
  for (let run = 0; run < runs; run++) {
    const [answer, milliseconds] = await timed(decode)
    answers = answer
    times.push(milliseconds)
  }
  const { masks, scores, objects } = answers
  const values = await allPacked({
    masks,
    iou_predictions: scores,
    ...(objects && { object_score_logits: objects }),
  })
  return [answers, { times, values }]
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
      return { error: words(error) }
    }
  }
  Object.assign(window, { check })
}
