// Holds a model's sessions off the page's thread; interface/worker-client.js is the other side.

import { openStore } from './frames/database.js'
import { candidate, grid, labelsOver, objectsAmong } from './image/everything.js'
import { best, maskAt } from './shared/feeds.js'
import { createSession, decode, encode, fetchFiles, runtime, timed } from './shared/model.js'
import { trackerOf, Tracking, trackingSessions } from './frames/tracking-worker.js'

/** @typedef {import('./shared/model.js').Provider} Provider */
/** @typedef {import('./shared/preprocessing.js').Placement} Placement */

/** @type {import('./shared/model.js').Runtime} */
let ort
/** @type {import('./shared/contract.js').Manifest} */
let manifest
/** @type {{ encoder: import('./shared/model.js').Session, decoder: import('./shared/model.js').Session }} */
let sessions
/** @type {import('./shared/feeds.js').Features} */
let features
/** @type {import('./image/everything.js').Candidate[]} what was found last in the image */
let candidates = []
/** @type {{ base: string, provider: Provider }} */
let opened
/** @type {Record<string, import('./shared/model.js').Session> | null} the graphs that track, once asked for */
let tracking = null
/** @type {Tracking} */
let followed

/**
 * How many clicks of a grid are decoded at once where the contract takes many: on WASM in about 0.75
 * of the time that they take one by one. More are hardly faster, and take 15 MiB each.
 */
const AT_ONCE = 8

/** @param {string} phase @param {number} [done] @param {number} [total] @param {string} [unit] */
function progress(phase, done, total, unit) {
  postMessage({ progress: { phase, done, total, unit } })
}

/** Let messages in that have come meanwhile. */
function messages() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel()
    port1.onmessage = resolve
    port2.postMessage(null)
  })
}

const calls = {
  /**
   * Fetch both files, or take them from the cache, and create their sessions.
   *
   * @param {{ base: string, provider: Provider, threads: number,
   *   manifest: import('./shared/contract.js').Manifest }} args
   */
  async open({ base, provider, threads, manifest: given }) {
    manifest = given
    opened = { base, provider }
    const names = { encoder: manifest.encoder.file, decoder: manifest.decoder.file }
    /** @type {Record<string, Uint8Array>} */
    const files = {}
    const fetching = fetchFiles(base, names, manifest, (loaded, total) =>
      progress('Loading', loaded, total, 'bytes'),
    )
    for await (const [graph, bytes] of fetching) files[graph] = bytes
    progress('Starting onnxruntime-web')
    ort = await runtime(provider, threads)
    progress('Creating the sessions')
    // The decoder first: what its small graph has compiled, the encoder's large one need not wait
    // for (0.5 s for both instead of 0.6).
    const decoder = await createSession(ort, files.decoder, provider)
    sessions = { encoder: await createSession(ort, files.encoder, provider), decoder }
  },

  /** @param {{ rgba: Uint8ClampedArray, place: Placement }} args */
  async encode({ rgba, place }) {
    candidates = []
    const [result, milliseconds] = await timed(() =>
      encode(ort, sessions.encoder, manifest, rgba, place),
    )
    features = result
    return { milliseconds }
  },

  /**
   * @param {{ prompt: import('./shared/preprocessing.js').Prompt, previous: Float32Array | null,
   *   place: Placement }} args
   */
  async decode({ prompt, place, previous }) {
    const [result, milliseconds] = await timed(() =>
      decode(ort, sessions.decoder, manifest, features, [prompt], place, previous && [previous]),
    )
    return { masks: result.masks, scores: result.scores.data, milliseconds }
  },

  /**
   * Decode a click on each point of a grid, and keep the best masks, of which `objects` chooses.
   *
   * @param {{ side: number, place: Placement }} args
   * @param {() => boolean} stopped
   * @returns {Promise<{ prompts: number, milliseconds: number } | null>} null when it was stopped
   */
  async everything({ side, place }, stopped) {
    const { prompts } = manifest
    const clicks = grid(side, place.width, place.height)
    const atOnce = prompts.at_once === 'many' ? AT_ONCE : 1
    candidates = []
    const [, milliseconds] = await timed(async () => {
      for (let done = 0; done < clicks.length; done += atOnce) {
        progress('Segmenting', done, clicks.length, 'clicks')
        await messages()
        if (stopped()) return
        const some = clicks.slice(done, done + atOnce)
        const found = await decode(ort, sessions.decoder, manifest, features, some, place, null)
        const [, each, size] = found.masks.dims
        some.forEach(({ points: [point] }, index) => {
          const scores = found.scores.data.subarray(index * each, (index + 1) * each)
          const chosen = best(manifest, scores)
          const logits = maskAt(found.masks, chosen, index)
          const score = scores[chosen]
          const one = candidate(logits, size, score, point, place, prompts.mask_threshold)
          if (one) candidates.push(one)
        })
      }
    })
    if (stopped()) {
      candidates = []
      return null
    }
    return { prompts: clicks.length, milliseconds }
  },

  /**
   * The objects among what was found, and an image of their numbers.
   *
   * @param {{ limits: import('./image/everything.js').Limits, place: Placement, width: number,
   *   height: number }} args
   */
  async objects({ limits, place, width, height }) {
    const objects = objectsAmong(candidates, limits)
    const { mask_threshold: threshold } = manifest.prompts
    return {
      labels: labelsOver(objects, place, width, height, threshold),
      middles: objects.map(({ middle }) => middle),
    }
  },

  /**
   * Get ready to follow objects through a sequence; what was followed before is forgotten.
   *
   * @param {{ frames: import('./shared/tracker.js').Frames, database: string }} args
   */
  async follow({ frames, database }) {
    const { base, provider } = opened
    const { encoder } = sessions
    const using = { ort, encoder, manifest, provider }
    tracking ??= await trackingSessions(using, base, (loaded, total) =>
      progress('Loading what tracks', loaded, total, 'bytes'),
    )
    const store = await openStore(database, 'memories')
    await store.clear()
    followed = new Tracking(trackerOf(using, tracking, frames, store, pixelsOf))
  },

  /** @param {import('./frames/tracking-worker.js').Said} said */
  prompt: (said) => followed.prompt(said),

  /**
   * Follow objects, and tell what is found frame by frame.
   *
   * @param {Parameters<Tracking['track']>[0]} args
   * @param {() => boolean} stopped
   * @param {(part: unknown) => void} tell
   * @returns {Promise<{ frames: number, milliseconds: number } | null>} null when it was stopped
   */
  async track(args, stopped, tell) {
    let frames = 0
    const [, milliseconds] = await timed(async () => {
      for await (const part of followed.track(args, stopped)) {
        frames++
        tell(part)
        await messages() // one may say that it is to stop
      }
    })
    return stopped() ? null : { frames, milliseconds }
  },
}

/**
 * A frame that the page was asked for: calls run one after the other, so there is one at a time.
 *
 * @type {{ resolve: (rgba: Uint8ClampedArray) => void, reject: (error: Error) => void }}
 */
let wanted

/** @param {number} frame @returns {Promise<Uint8ClampedArray>} */
function pixelsOf(frame) {
  return new Promise((resolve, reject) => {
    wanted = { resolve, reject }
    postMessage({ wanted: frame })
  })
}

/** @type {Promise<void>} */
let queue = Promise.resolve()
/** @type {Set<number>} calls that are to stop */
const stops = new Set()

onmessage = ({ data }) => {
  const { id, call, args, stop } = data
  if (data.rgba) {
    wanted.resolve(data.rgba)
    return
  }
  if (data.error !== undefined) {
    wanted.reject(new Error(data.error))
    return
  }
  if (stop !== undefined) {
    stops.add(stop)
    return
  }
  queue = queue.then(async () => {
    try {
      const run = calls[/** @type {keyof typeof calls} */ (call)]
      const tell = (/** @type {unknown} */ part) => postMessage({ id, part })
      postMessage({ id, result: await run(args, () => stops.has(id), tell) })
    } catch (error) {
      postMessage({ id, error: error instanceof Error ? error.message : String(error) })
    }
  })
}
