// The steps of check.js with transformers.js, which loads a model's folder, feeds the graphs and reads
// their outputs in its own way.

import { answers } from '../shared/feeds.js'
import { timed } from '../shared/model.js'
import { nodePlacement } from './node-placement.js'
import { BASE, Loaded } from './session-steps.js'
import { allPosted, decodeRuns, logged, offer } from './steps.js'

/** @typedef {import('../shared/model.js').Provider} Provider */
/** @typedef {import('../shared/preprocessing.js').Prompt} Prompt */
/** @typedef {'encoder' | 'decoder'} Part */

const NAME = BASE.slice(1)
// The version that transformers.js depends on, which differs from the page's version.
const RUNTIME = '/npm/@huggingface/transformers/node_modules/onnxruntime-web/dist'
const WASM = `${RUNTIME}/ort-wasm-simd-threaded.asyncify`
/** @type {Record<Part, string>} transformers.js's names for the two sessions */
const SESSIONS = { encoder: 'vision_encoder', decoder: 'prompt_encoder_mask_decoder' }

const loaded = new Loaded()
/** @type {typeof import('@huggingface/transformers')} */
let transformers
/** @type {import('onnxruntime-web')} the one that transformers.js runs */
let ort
/** @type {Record<string, { session: any, milliseconds: number }>} by part and provider */
const created = {}
/** @type {Record<string, any>} the model, by part and provider */
const models = {}
/** @type {any} the model's */
let processor
/** @type {any} RawImage */
let picture
/** @type {any} */
let embeddings

/** Serve only files that were loaded and hashed, and only from this server. @param {any} url */
async function answerFetch(url) {
  const { origin, pathname } = new URL(url, location.href)
  if (origin !== location.origin) throw new Error(`transformers.js requests ${url}`)
  const part = partOf(({ file }) => pathname === `${BASE}/${file}`)
  if (!part && pathname.endsWith('.onnx')) {
    throw new Error(`transformers.js requests ${pathname}, which manifest.json does not list`)
  }
  if (!part) return fetch(url)
  const { buffer } = loaded.files[part]
  return Object.assign(new Response(), { arrayBuffer: async () => buffer })
}

/**
 * @param {(part: import('../shared/contract.js').Part, name: Part) => boolean} fits
 * @returns {Part | undefined}
 */
function partOf(fits) {
  return /** @type {const} */ (['encoder', 'decoder']).find((name) => fits(loaded.manifest[name], name))
}

/**
 * Make transformers.js create the session of each part and provider only once, and time it: it would
 * create the sessions of both parts with each model.
 */
function timeCreation() {
  const create = ort.InferenceSession.create.bind(ort.InferenceSession)
  /** @param {Uint8Array} bytes @param {any} options */
  const once = async (bytes, options) => {
    const part = partOf((_, name) => loaded.files[name]?.buffer === bytes.buffer)
    if (!part) return create(bytes, options)
    const key = `${part} ${options.executionProviders[0]}`
    if (!created[key]) {
      const [session, milliseconds] = await timed(() => create(bytes, options))
      created[key] = { session, milliseconds }
    }
    return created[key].session
  }
  Object.assign(ort.InferenceSession, { create: once })
}

offer({
  ...loaded.steps,

  /**
   * Start transformers.js and its onnxruntime-web, with an identity graph.
   *
   * @param {{ provider: Provider, threads: number, nothing: number[] }} step
   */
  async start({ provider, threads, nothing }) {
    const [, milliseconds] = await timed(async () => {
      if (!transformers) {
        transformers = await import('@huggingface/transformers')
        ort = await import('onnxruntime-web/webgpu')
        const { env } = transformers
        Object.assign(env, {
          fetch: answerFetch,
          allowLocalModels: true,
          localModelPath: '/',
          allowRemoteModels: false,
          useBrowserCache: false,
          useWasmCache: false,
          logLevel: transformers.LogLevel.ERROR,
        })
        ort.env.wasm.wasmPaths = { mjs: `${WASM}.mjs`, wasm: `${WASM}.wasm` }
        ort.env.wasm.numThreads = threads
        timeCreation()
      }
      const bytes = Uint8Array.from(nothing)
      await ort.InferenceSession.create(bytes, { executionProviders: [provider] })
    })
    const { version } = transformers.env
    return { milliseconds, version: ort.env.versions.web, client: `transformers.js ${version}` }
  },

  /** @param {{ part: Part, provider: Provider }} step */
  async create({ part, provider }) {
    const other = part === 'encoder' ? 'decoder' : 'encoder'
    // The other part's session already exists, or is the first of all sessions.
    const beside = created[`${other} ${provider}`] ? provider : 'wasm'
    const device = { [SESSIONS[part]]: provider, [SESSIONS[other]]: beside }
    const { AutoModel } = transformers
    const options = /** @type {any} */ ({ device, dtype: loaded.manifest.dtype ?? 'fp32' })
    models[`${part} ${provider}`] = await AutoModel.from_pretrained(NAME, options)
    return { milliseconds: created[`${part} ${provider}`].milliseconds }
  },

  /**
   * The provider of each node of a part, from a separate session of the same onnxruntime-web.
   *
   * @param {{ part: Part, provider: Provider }} step
   */
  async nodes({ part, provider }) {
    const bytes = loaded.files[part].slice() // a copy, or `timeCreation` would return its session
    const lines = await logged(async () => {
      const options = { logSeverityLevel: /** @type {const} */ (0), executionProviders: [provider] }
      await (await ort.InferenceSession.create(bytes, options)).release()
    })
    return { placement: nodePlacement(lines) }
  },

  /** @param {{ provider: Provider, image: string }} step */
  async encode({ provider, image }) {
    const { AutoProcessor, RawImage } = transformers
    processor ??= await AutoProcessor.from_pretrained(NAME)
    picture = await RawImage.read(image)
    const { pixel_values: input } = await processor(picture)
    const model = models[`encoder ${provider}`]
    const [returned, milliseconds] = await timed(() =>
      model.get_image_embeddings({ pixel_values: input }),
    )
    embeddings ??= returned
    const outputs = loaded.manifest.encoder.outputs.map(({ name, role }) => [role, returned[name]])
    const values = await allPosted({ ...Object.fromEntries(outputs), image: input })
    return { milliseconds, values }
  },

  /**
   * Decode a prompt, or several of one kind.
   *
   * @param {{ provider: Provider, previous?: string | null, runs: number, prompt: Prompt,
   *   prompts?: Prompt[] }} step
   */
  async decode({ provider, previous, prompt, prompts = [prompt], runs }) {
    if (previous) throw new Error('transformers.js has no mask input, so it cannot refine a mask')
    const inputs = await processor(picture, processorInputs(prompts))
    const model = models[`decoder ${provider}`]
    const [, report] = await decodeRuns(runs, async () =>
      answers(loaded.manifest, await model({ ...embeddings, ...inputs })),
    )
    return { ...report, mask_input: null }
  },
})

/** Prompts in the processor's form, in the image's pixels. @param {Prompt[]} prompts */
function processorInputs(prompts) {
  const points = prompts.map((prompt) => prompt.points.map(({ x, y }) => [x, y]))
  const labels = prompts.map((prompt) => prompt.points.map((point) => Number(point.foreground)))
  const boxes = prompts.flatMap(({ box }) => (box ? [box] : []))
  return {
    ...(points[0].length ? { input_points: points, input_labels: labels } : {}),
    ...(boxes.length ? { input_boxes: [boxes] } : {}),
  }
}
