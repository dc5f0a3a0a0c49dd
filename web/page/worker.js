// Holds a model's sessions off the page's thread; interface/worker-client.js is the other side.

import { openStore } from './frames/database.js'
import { trackerOf, Tracking, trackingSessions } from './frames/tracking-worker.js'
import { candidate, grid, objectsAmong } from './image/everything.js'
import { WHOLE } from './image/crop.js'
import { best, maskAt } from './shared/feeds.js'
import { createSession, decode, encode, fetchFiles, runtime, timed } from './shared/model.js'
import { words } from './shared/words.js'

/** @typedef {import('./shared/model.js').Session} Session */
/** @typedef {import('./shared/preprocessing.js').Placement} Placement */

/**
 * The open model.
 *
 * @type {import('./frames/tracking-worker.js').Opened & { decoder: Session, base: string,
 *   manifest: import('./shared/contract.js').Manifest }}
 */
let model
/** The encodings, by the page's names. @type {Map<string, import('./shared/feeds.js').Features>} */
const encoded = new Map()
/** @type {import('./image/everything.js').Candidate[]} the masks of the last grid of clicks */
let candidates = []
/** @type {Record<string, Session> | null} the tracking graphs, once a sequence needs them */
let trackingGraphs = null
/** @type {Tracking} */
let tracking

/**
 * How many clicks of a grid are decoded at once if the contract takes many: on WASM in about 0.75 of
 * the time that they take one by one. More are hardly faster, and take 15 MiB each.
 */
const AT_ONCE = 8

/** @param {string} phase @param {number} [done] @param {number} [total] @param {string} [unit] */
function progress(phase, done, total, unit) {
  postMessage({ progress: { phase, done, total, unit } })
}

/** Wait until messages that came meanwhile are handled. */
function messages() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel()
    port1.onmessage = resolve
    port2.postMessage(null)
  })
}

/** @param {string} name */
function featuresOf(name) {
  const features = encoded.get(name)
  if (!features) throw new Error(`Nothing is encoded as ${name}: open the image again.`)
  return features
}

const calls = {
  /**
   * Fetch both files, or take them from the cache, and create their sessions.
   *
   * @param {{ base: string, provider: import('./shared/model.js').Provider, threads: number,
   *   manifest: import('./shared/contract.js').Manifest }} args
   */
  async open({ base, provider, threads, manifest }) {
    const names = { encoder: manifest.encoder.file, decoder: manifest.decoder.file }
    /** @type {Record<string, Uint8Array>} */
    const files = {}
    const fetching = fetchFiles(base, names, manifest, (loaded, total) =>
      progress('Loading', loaded, total, 'bytes'),
    )
    for await (const [graph, bytes] of fetching) files[graph] = bytes
    progress('Starting onnxruntime-web')
    const ort = await runtime(provider, threads)
    progress('Creating the sessions')
    // The decoder first: its small graph compiles code that the encoder's large graph then reuses
    // (0.5 s for both instead of 0.6).
    const decoder = await createSession(ort, files.decoder, provider)
    const encoder = await createSession(ort, files.encoder, provider)
    model = { ort, encoder, decoder, manifest, provider, base }
  },

  /**
   * Encode an image, or a part of one, under a name.
   *
   * @param {{ rgba: Uint8ClampedArray, place: Placement, name: string, kept: string[] }} args
   *   names of the encodings to keep beside it
   */
  async encode({ rgba, place, name, kept }) {
    candidates = []
    for (const other of encoded.keys()) if (!kept.includes(other)) encoded.delete(other)
    const { ort, encoder, manifest } = model
    const [result, milliseconds] = await timed(() => encode(ort, encoder, manifest, rgba, place))
    encoded.set(name, result)
    return { milliseconds }
  },

  /**
   * @param {{ prompt: import('./shared/preprocessing.js').Prompt, previous: Float32Array | null,
   *   place: Placement, name: string }} args the name of the encoding
   */
  async decode({ prompt, place, previous, name }) {
    const { ort, decoder, manifest } = model
    const features = featuresOf(name)
    const masks = previous && [previous]
    const [result, milliseconds] = await timed(() =>
      decode(ort, decoder, manifest, features, [prompt], place, masks),
    )
    return { masks: result.masks, scores: result.scores.data, milliseconds }
  },

  /**
   * Decode a click on each point of a grid, and keep the best masks, from which `objects` chooses.
   *
   * @param {{ side: number, place: Placement }} args
   * @param {() => boolean} stopped
   * @returns {Promise<{ prompts: number, milliseconds: number, side: number } | null>} null if it was
   *   stopped
   */
  async everything({ side, place }, stopped) {
    const { ort, decoder, manifest } = model
    const features = featuresOf(WHOLE)
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
        const answers = await decode(ort, decoder, manifest, features, some, place, null)
        const [, each, size] = answers.masks.dims
        some.forEach(({ points: [point] }, index) => {
          const scores = answers.scores.data.subarray(index * each, (index + 1) * each)
          const chosen = best(manifest, scores)
          const logits = maskAt(answers.masks, chosen, index)
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
    return { prompts: clicks.length, milliseconds, side: candidates[0]?.size ?? 0 }
  },

  /**
   * The objects among the candidates.
   *
   * @param {{ limits: import('./image/everything.js').Limits, place: Placement,
   *   present: Float32Array[] }} args with the logits of objects that already exist
   */
  async objects({ limits, place, present }) {
    const { mask_threshold: threshold } = model.manifest.prompts
    const there = present.flatMap((logits) => {
      const side = Math.sqrt(logits.length)
      return candidate(logits, side, 1, { x: 0, y: 0, foreground: true }, place, threshold) ?? []
    })
    return objectsAmong(candidates, limits, there).map(({ logits, size, score, point }) => {
      return { logits, size, score, point }
    })
  },

  /**
   * Get ready to track objects through a sequence, and forget the previous sequence.
   *
   * @param {{ frames: import('./shared/tracker.js').Frames, database: string }} args
   */
  async follow({ frames, database }) {
    trackingGraphs ??= await trackingSessions(model, model.base, (loaded, total) =>
      progress('Loading the tracking graphs', loaded, total, 'bytes'),
    )
    const store = await openStore(database, 'memories')
    await store.clear()
    tracking = new Tracking(trackerOf(model, trackingGraphs, frames, store, pixelsOf))
  },

  /** Forget encoded frames, because their levels changed. */
  forgetFrames: async () => tracking?.tracker.recent.clear(),

  /** @param {import('./frames/tracking-worker.js').ObjectPrompts} prompts */
  prompt: (prompts) => tracking.prompt(prompts),

  /**
   * Track objects, and send the masks of each frame when they are ready.
   *
   * @param {Parameters<Tracking['track']>[0]} args
   * @param {() => boolean} stopped
   * @param {(part: unknown) => void} send
   */
  async track(args, stopped, send) {
    for await (const part of tracking.track(args, stopped)) {
      send(part)
      await messages() // one may stop the call
    }
  },
}

/**
 * Waits for a frame's pixels from the page. Calls run one after the other, so only one waits.
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
/** @type {Set<number>} calls to stop */
const stops = new Set()

onmessage = ({ data }) => {
  const { id, call, args, stop } = data
  if (data.rgba) wanted.resolve(data.rgba)
  else if (data.error !== undefined) wanted.reject(new Error(data.error))
  else if (stop !== undefined) stops.add(stop)
  else queue = queue.then(() => answer(id, call, args))
}

/** @param {number} id @param {keyof typeof calls} call @param {any} args */
async function answer(id, call, args) {
  try {
    const send = (/** @type {unknown} */ part) => postMessage({ id, part })
    postMessage({ id, result: await calls[call](args, () => stops.has(id), send) })
  } catch (error) {
    postMessage({ id, error: words(error) })
  }
}
