// Loads a model's files with onnxruntime-web and runs them, as manifest.json describes them.

import { inputShape, withRole } from './contract.js'
import { answers, decoderFeeds, joined } from './feeds.js'
import { imageTensor } from './preprocessing.js'

/** @typedef {import('onnxruntime-web')} Runtime */
/** @typedef {import('onnxruntime-web').InferenceSession} Session */
/** @typedef {import('./contract.js').Manifest} Manifest */
/** @typedef {import('./feeds.js').Features} Features */
/** @typedef {import('./preprocessing.js').Placement} Placement */
/** @typedef {import('./preprocessing.js').Prompt} Prompt */
/** @typedef {'wasm' | 'webgpu'} Provider an execution provider of onnxruntime-web */
/** @type {Record<Provider, string>} */
const BUNDLES = {
  wasm: '/onnxruntime-web/ort.wasm.min.mjs',
  webgpu: '/onnxruntime-web/ort.webgpu.min.mjs',
}

/**
 * onnxruntime-web for a provider.
 *
 * @param {Provider} provider
 * @param {number} threads of WASM; more than one needs a cross-origin isolated page
 * @param {string} [bundle] the address of another build
 * @returns {Promise<Runtime>}
 */
export async function runtime(provider, threads, bundle = BUNDLES[provider]) {
  /** @type {Runtime} */
  const ort = await import(bundle)
  ort.env.wasm.numThreads = threads
  ort.env.logLevel = 'error'
  return ort
}

/** @returns {number} the number of threads: onnxruntime-web uses at most 4 by default */
export function threadsHere() {
  return globalThis.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency || 1) : 1
}

/**
 * The WebGPU adapter of this browser, or null if there is none.
 *
 * @returns {Promise<{ name: string, software: boolean } | null>}
 */
export async function adapter() {
  /** @type {any} */
  const gpu = await /** @type {any} */ (navigator).gpu?.requestAdapter()
  if (!gpu) return null
  const { vendor, architecture, description, isFallbackAdapter } = gpu.info
  const name = description || [vendor, architecture].filter(Boolean).join(' ') || 'unnamed'
  return { name, software: Boolean(isFallbackAdapter) }
}

/** @template T @param {() => Promise<T>} work @returns {Promise<[T, number]>} and milliseconds */
export async function timed(work) {
  const start = performance.now()
  const result = await work()
  return [result, performance.now() - start]
}

/**
 * Fetch some of a model's files one after the other, or take them from the browser's cache.
 *
 * @param {string} base the address of their folder
 * @param {Record<string, string>} names by graph
 * @param {Manifest} manifest
 * @param {(loaded: number, total: number) => void} onProgress bytes of all files
 * @returns {AsyncGenerator<[string, Uint8Array<ArrayBuffer>]>} each graph's name and file
 */
export async function* fetchFiles(base, names, { files }, onProgress) {
  const total = Object.values(names).reduce((sum, name) => sum + files[name].size, 0)
  const cache = await globalThis.caches?.open('sam-models').catch(() => undefined)
  let before = 0
  for (const [graph, name] of Object.entries(names)) {
    const report = (/** @type {number} */ loaded) => onProgress(before + loaded, total)
    yield [graph, await fetchFile(`${base}/${name}`, files[name], report, cache)]
    before += files[name].size
  }
}

/**
 * Fetch one model file, or take it from a cache whose keys hold the file's hash.
 *
 * @param {string} url
 * @param {{ size: number, sha256: string }} expected from the manifest
 * @param {(loaded: number) => void} onProgress bytes so far
 * @param {Cache} [cache] stores the file, in place of earlier versions
 * @returns {Promise<Uint8Array<ArrayBuffer>>}
 */
export async function fetchFile(url, { size, sha256 }, onProgress, cache) {
  const key = `${url}?sha256=${sha256}`
  const kept = await (await cache?.match(key))?.arrayBuffer().catch(() => null)
  if (kept?.byteLength === size) {
    onProgress(size)
    return new Uint8Array(kept)
  }
  const response = await fetch(url)
  if (!response.ok || !response.body) throw new Error(`${url}: HTTP ${response.status}`)
  const bytes = new Uint8Array(size) // one array: the encoder of large is too large for a Blob
  let loaded = 0
  const reader = response.body.getReader()
  for (let read = await reader.read(); !read.done; read = await reader.read()) {
    // A server that answers with its own page for a missing file would poison the cache.
    if (loaded === 0 && read.value[0] === '<'.charCodeAt(0)) {
      throw new Error(`${url}: found an HTML page, expected an ONNX file`)
    }
    if (loaded + read.value.length <= size) bytes.set(read.value, loaded)
    loaded += read.value.length
    onProgress(loaded)
  }
  if (loaded !== size) {
    throw new Error(`${url}: found ${loaded} bytes, but the manifest says ${size}`)
  }
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes))
  const hash = Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('')
  if (hash !== sha256) {
    throw new Error(`${url}: found sha256 ${hash}, but the manifest says ${sha256}`)
  }
  // If the cache has no room, the file is fetched again the next time.
  if (cache) await keep(cache, url, key, bytes).catch(() => {})
  return bytes
}

/**
 * Put a file into the cache, in place of its earlier versions.
 *
 * @param {Cache} cache
 * @param {string} url
 * @param {string} key
 * @param {Uint8Array<ArrayBuffer>} bytes
 */
async function keep(cache, url, key, bytes) {
  for (const request of await cache.keys()) {
    if (request.url.startsWith(new URL(`${url}?`, location.href).href)) await cache.delete(request)
  }
  await cache.put(key, new Response(bytes))
}

/** @type {Promise<unknown>} */
let creating = Promise.resolve()

/**
 * Create a session after those being created: onnxruntime-web must not create two at once.
 *
 * @param {Runtime} ort
 * @param {Uint8Array} file
 * @param {Provider | import('onnxruntime-web').InferenceSession.ExecutionProviderConfig} provider
 * @param {import('onnxruntime-web').InferenceSession.SessionOptions} [options] further options
 * @returns {Promise<Session>}
 */
export function createSession(ort, file, provider, options) {
  const created = creating.then(() =>
    ort.InferenceSession.create(file, { ...options, executionProviders: [provider] }),
  )
  creating = created.catch(() => {})
  return created
}

/**
 * Run the encoder.
 *
 * @param {Runtime} ort
 * @param {Session} encoder
 * @param {Manifest} manifest
 * @param {Uint8ClampedArray} rgba the image at its scaled size
 * @param {Placement} place
 * @returns {Promise<Features>} by role
 */
export async function encode(ort, encoder, manifest, rgba, place) {
  const { inputs, outputs } = manifest.encoder
  const image = new ort.Tensor(
    'float32',
    imageTensor(rgba, place, manifest.preprocessing),
    inputShape(manifest),
  )
  const values = valuesOf(await encoder.run({ [withRole(inputs, 'image').name]: image }))
  return Object.fromEntries(outputs.map(({ name, role }) => [role, values[name]]))
}

/**
 * Run the decoder: once for all prompts if it takes many, otherwise one by one.
 *
 * @param {Runtime} ort
 * @param {Session} decoder
 * @param {Manifest} manifest
 * @param {Features} features
 * @param {Prompt[]} prompts of one kind: equally many points each, all with a box or all without
 * @param {Placement} place
 * @param {Float32Array[] | null} previous the logits of a mask to refine, for each prompt
 * @returns {Promise<import('./feeds.js').Answers>}
 */
export async function decode(ort, decoder, manifest, features, prompts, place, previous) {
  const atOnce = manifest.prompts.at_once === 'many' ? prompts.length : 1
  const parts = []
  for (let start = 0; start < prompts.length; start += atOnce) {
    const some = prompts.slice(start, start + atOnce)
    const masks = previous && previous.slice(start, start + atOnce)
    const feeds = Object.entries(decoderFeeds(manifest, features, some, place, masks))
    const tensors = feeds.map(([name, { dtype, data, dims }]) => [
      name,
      new ort.Tensor(/** @type {any} */ (dtype), data, dims),
    ])
    parts.push(answers(manifest, valuesOf(await decoder.run(Object.fromEntries(tensors)))))
  }
  return joined(parts)
}

/**
 * @param {import('onnxruntime-web').InferenceSession.OnnxValueMapType} outputs
 * @returns {Record<string, import('./feeds.js').Values>}
 */
function valuesOf(outputs) {
  return Object.fromEntries(
    Object.entries(outputs).map(([name, value]) => {
      const { data, dims } = /** @type {import('onnxruntime-web').TypedTensor<'float32'>} */ (value)
      return [name, { data, dims }]
    }),
  )
}
