// Shared by the pages of the browser's proof: offers steps, times them, and logs.

import { timed } from '../shared/model.js'
import { words } from '../shared/words.js'

/** @typedef {import('../shared/feeds.js').Answers} Answers */
/** @typedef {import('../shared/feeds.js').Values} Values */

/** @type {string[] | null} */
let log = null
/** @type {string[]} the log since the last step, for a driver that sees no console */
let lines = []
// Replaced at load, because onnxruntime-web keeps the console.error that exists when it starts.
for (const name of /** @type {const} */ (['warn', 'error'])) {
  const write = console[name]
  console[name] = (...parts) => {
    if (log) log.push(parts.join(' '))
    else {
      lines.push(parts.join(' '))
      write(...parts)
    }
  }
}

/**
 * The log of onnxruntime-web during some work, which is kept off the console.
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
 * Send values to the server, which keeps them for the driver: as the result of a step, an image's
 * features would take seconds.
 *
 * @param {{ data: Float32Array | Float32Array[], dims: readonly number[] }} values several arrays are
 *   concatenated
 * @returns {Promise<{ name: string, dims: readonly number[] }>}
 */
export async function posted({ data, dims }) {
  const name = crypto.randomUUID()
  const body = new Blob(/** @type {BlobPart[]} */ ([data].flat()))
  const response = await fetch(`/arrays/${name}`, { method: 'POST', body })
  if (!response.ok) throw new Error(`posting an array failed: HTTP ${response.status}`)
  return { name, dims }
}

/** @param {Record<string, Values>} values */
export async function allPosted(values) {
  const entries = Object.entries(values).map(async ([name, each]) => [name, await posted(each)])
  return Object.fromEntries(await Promise.all(entries))
}

/**
 * Run the decoder several times.
 *
 * @param {number} runs
 * @param {() => Promise<Answers>} decode
 * @returns {Promise<[Answers, { times: number[], values: object }]>} the last answer, and its part of
 *   the result of the step "decode"
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
  const values = await allPosted({
    masks,
    iou_predictions: scores,
    ...(objects && { object_score_logits: objects }),
  })
  return [answers, { times, values }]
}

/**
 * Offer steps to the driver as `window.check({ step, ...arguments })`; or, for browsers without a
 * driver, to the server, if the page's address has `?driver=server`. An error's message is returned.
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
  if (new URLSearchParams(location.search).get('driver') === 'server') void serve(check)
}

/**
 * Run steps from the server one after the other, and return their results and the page's log.
 *
 * @param {(job: any) => Promise<unknown>} check
 */
async function serve(check) {
  addEventListener('error', ({ message }) => lines.push(message))
  addEventListener('unhandledrejection', ({ reason }) => lines.push(words(reason)))
  /** @type {unknown} */
  let answer = null
  for (;;) {
    const response = await fetch('/steps', { method: 'POST', body: JSON.stringify(answer) })
    const job = await response.json()
    if (job?.step === 'close') return
    answer = job && { result: await check(job), lines }
    if (job) lines = []
  }
}
