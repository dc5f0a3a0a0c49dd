// Holds a model's sessions off the page's thread; see `Model` in page.js for the other side.

import { createSession, decode, encode, fetchFile, runtime } from './model.js'

/** @typedef {import('./model.js').Provider} Provider */

/** @type {import('./model.js').Runtime} */
let ort
/** @type {import('./model.js').Manifest} */
let manifest
/** @type {{ encoder: import('./model.js').Session, decoder: import('./model.js').Session }} */
let sessions
/** @type {import('./model.js').Features} */
let features

/** @param {string} phase @param {number} [done] @param {number} [total] in bytes */
function progress(phase, done, total) {
  postMessage({ progress: { phase, done, total } })
}

/** @template T @param {() => Promise<T>} work */
async function timed(work) {
  const start = performance.now()
  return { result: await work(), milliseconds: performance.now() - start }
}

const calls = {
  /**
   * Fetch both files, or take them from the cache, and create their sessions.
   *
   * @param {{ base: string, provider: Provider, threads: number,
   *   manifest: import('./model.js').Manifest }} args
   */
  async open({ base, provider, threads, manifest: given }) {
    manifest = given
    const { encoder, decoder } = manifest
    const names = [encoder.file, decoder.file]
    const total = names.reduce((sum, name) => sum + manifest.files[name].size, 0)
    const cache = await globalThis.caches?.open('sam-models').catch(() => undefined)
    const files = []
    let before = 0
    for (const name of names) {
      const expected = manifest.files[name]
      const report = (/** @type {number} */ loaded) => progress('Loading', before + loaded, total)
      files.push(await fetchFile(`${base}/${name}`, expected, report, cache))
      before += expected.size
    }
    progress('Starting onnxruntime-web')
    ort = await runtime(provider, threads)
    progress('Creating the sessions')
    // The decoder first: what its small graph has compiled, the encoder's large one need not wait
    // for (0.5 s for both instead of 0.6).
    const second = await createSession(ort, files[1], provider)
    sessions = { encoder: await createSession(ort, files[0], provider), decoder: second }
  },

  /** @param {{ rgba: Uint8ClampedArray, place: import('./preprocessing.js').Placement }} args */
  async encode({ rgba, place }) {
    const { result, milliseconds } = await timed(() =>
      encode(ort, sessions.encoder, manifest, rgba, place),
    )
    features = result
    return { milliseconds }
  },

  /**
   * @param {{ prompt: import('./preprocessing.js').Prompt, previous: Float32Array | null,
   *   place: import('./preprocessing.js').Placement }} args
   */
  async decode({ prompt, place, previous }) {
    const { result, milliseconds } = await timed(() =>
      decode(ort, sessions.decoder, manifest, features, prompt, place, previous),
    )
    return { ...result, milliseconds }
  },
}

/** @type {Promise<void>} */
let queue = Promise.resolve()

onmessage = ({ data: { id, call, args } }) => {
  queue = queue.then(async () => {
    try {
      const result = await calls[/** @type {keyof typeof calls} */ (call)](args)
      postMessage({ id, result })
    } catch (error) {
      postMessage({ id, error: error instanceof Error ? error.message : String(error) })
    }
  })
}
