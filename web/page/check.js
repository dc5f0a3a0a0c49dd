// What the browser stage has a page do, step by step: fetch, create, encode, decode, each timed.
//
// tasks/browser.py calls these through `window.check` and compares what comes back. An error is
// returned in onnxruntime-web's own words.

import { loadImage, scaledPixels } from './image.js'
import { adapter, createSession, decode, encode, fetchFile, inputSize, runtime } from './model.js'
import { nodePlacement } from './placement.js'
import { best, imageTensor, placement } from './preprocessing.js'

/** @typedef {import('./model.js').Provider} Provider */
/** @typedef {import('./model.js').Values} Values */

const BASE = '/model'

/** @type {import('./model.js').Manifest} */
let manifest
/** @type {Record<string, Uint8Array>} */
const files = {}
/** @type {Record<string, import('./model.js').Runtime>} */
const runtimes = {}
/** @type {Record<string, import('./model.js').Session>} */
const sessions = {}
/** @type {import('./preprocessing.js').Placement} */
let place
/** @type {import('./model.js').Features} */
let features
/** @type {Record<string, { masks: Values, scores: Float32Array }>} */
const answers = {}

/** @template T @param {() => Promise<T>} work @returns {Promise<[T, number]>} */
async function timed(work) {
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
async function logged(work) {
  const lines = (log = /** @type {string[]} */ ([]))
  try {
    await work()
  } finally {
    log = null
  }
  return lines
}

/** @param {Values} values */
async function packed({ data, dims }) {
  const url = await new Promise((resolve) => {
    const reader = new FileReader()
    reader.onload = () => resolve(reader.result)
    reader.readAsDataURL(new Blob([/** @type {Float32Array<ArrayBuffer>} */ (data)]))
  })
  return { base64: /** @type {string} */ (url).split(',')[1], dims }
}

const steps = {
  /** Where this runs. */
  async environment() {
    manifest = await (await fetch(`${BASE}/manifest.json`)).json()
    return { isolated: crossOriginIsolated, adapter: await adapter().catch(() => null) }
  },

  /** @param {{ part: 'encoder' | 'decoder' }} step */
  async load({ part }) {
    const { file } = manifest[part]
    const [bytes, milliseconds] = await timed(() =>
      fetchFile(`${BASE}/${file}`, manifest.files[file], () => {}),
    )
    files[part] = bytes
    return { milliseconds }
  },

  /**
   * Start onnxruntime-web, which it does with its first session: one of a graph that does nothing.
   *
   * @param {{ provider: Provider, threads: number, nothing: number[] }} step
   */
  async start({ provider, threads, nothing }) {
    const [ort, milliseconds] = await timed(async () => {
      const ort = await runtime(provider, threads)
      await createSession(ort, Uint8Array.from(nothing), provider)
      return ort
    })
    runtimes[provider] = ort
    return { milliseconds, version: ort.env.versions.web }
  },

  /** @param {{ part: 'encoder' | 'decoder', provider: Provider }} step */
  async create({ part, provider }) {
    const [session, milliseconds] = await timed(() =>
      createSession(runtimes[provider], files[part], provider),
    )
    sessions[`${part} ${provider}`] = session
    return { milliseconds }
  },

  /**
   * Where the nodes of a part are, by a session of its own: one that logs this logs each run too.
   *
   * @param {{ part: 'encoder' | 'decoder', provider: Provider }} step
   */
  async nodes({ part, provider }) {
    const lines = await logged(async () => {
      const options = { logSeverityLevel: /** @type {const} */ (0) }
      const session = await createSession(runtimes[provider], files[part], provider, options)
      await session.release()
    })
    return { placement: nodePlacement(lines) }
  },

  /** @param {{ provider: Provider, image: string }} step */
  async encode({ provider, image }) {
    const picture = await loadImage(image)
    place = placement(picture.naturalWidth, picture.naturalHeight, inputSize(manifest))
    const pixels = scaledPixels(picture, place)
    const session = sessions[`encoder ${provider}`]
    const [found, milliseconds] = await timed(() =>
      encode(runtimes[provider], session, manifest, pixels, place),
    )
    features ??= found
    const size = place.size
    const input = { data: imageTensor(pixels, place, manifest.preprocessing), dims: [1, 3, size, size] }
    const outputs = Object.entries({ ...found, image: input })
    return {
      milliseconds,
      values: Object.fromEntries(
        await Promise.all(outputs.map(async ([name, values]) => [name, await packed(values)])),
      ),
    }
  },

  /**
   * Decode a prompt; `previous` names an earlier one whose best mask it refines.
   *
   * @param {{ provider: Provider, name: string, previous: string | null, runs: number,
   *   prompt: import('./preprocessing.js').Prompt }} step
   */
  async decode({ provider, name, previous, prompt, runs }) {
    const session = sessions[`decoder ${provider}`]
    const mask = previous ? bestMask(answers[previous]) : null
    const times = []
    let answer
    for (let run = 0; run < runs; run++) {
      const [found, milliseconds] = await timed(() =>
        decode(runtimes[provider], session, manifest, features, prompt, place, mask),
      )
      times.push(milliseconds)
      answer = found
    }
    const { masks, scores } = /** @type {NonNullable<typeof answer>} */ (answer)
    answers[name] ??= { masks, scores }
    return {
      times,
      values: {
        masks: await packed(masks),
        iou_predictions: await packed({ data: scores, dims: [1, scores.length] }),
      },
      mask_input: mask && (await packed({ data: mask, dims: [1, 1, ...masks.dims.slice(2)] })),
    }
  },
}

/** @param {{ masks: Values, scores: Float32Array }} answer @returns {Float32Array} */
function bestMask({ masks: { data, dims }, scores }) {
  const size = dims[2] * dims[3]
  const index = best(scores)
  return data.slice(index * size, (index + 1) * size)
}

/** @param {{ step: keyof typeof steps }} job */
async function check(job) {
  try {
    return await steps[job.step](/** @type {any} */ (job))
  } catch (error) {
    return { error: error instanceof Error ? error.message : String(error) }
  }
}

Object.assign(window, { check })
