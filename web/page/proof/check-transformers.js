// The steps of check.js, taken by transformers.js: what it loads from the folder of a model, what
// it feeds and what it reads are its own.

import { answers } from '../shared/feeds.js'
import { timed } from '../shared/model.js'
import { nodePlacement } from './node-placement.js'
import { BASE, Loaded } from './session-steps.js'
import { allPosted, decodeRuns, logged, offer } from './steps.js'

/** @typedef {import('../shared/model.js').Provider} Provider */
/** @typedef {import('../shared/preprocessing.js').Prompt} Prompt */
/** @typedef {'encoder' | 'decoder'} Part */

const NAME = BASE.slice(1)
// The version that transformers.js asks for, which is not that of the page.
const RUNTIME = '/npm/@huggingface/transformers/node_modules/onnxruntime-web/dist'
const WASM = `${RUNTIME}/ort-wasm-simd-threaded.asyncify`
/** @type {Record<Part, string>} what transformers.js calls the two sessions */
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

/** Only what was loaded and hashed is run, and only this server is asked. @param {any} url */
async function answerFetch(url) {
  const { origin, pathname } = new URL(url, location.href)
  if (origin !== location.origin) throw new Error(`transformers.js asks for ${url}`)
  const part = partOf(({ file }) => pathname === `${BASE}/${file}`)
  if (!part && pathname.endsWith('.onnx')) {
    throw new Error(`transformers.js asks for ${pathname}, which manifest.json does not name`)
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
 * Have transformers.js create the session of each part and provider once, and time it: it creates
 * those of both parts with each model.
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
   * Start transformers.js and its onnxruntime-web, with a graph that does nothing.
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
    // What it needs of the other part is there already, or the first of all.
    const beside = created[`${other} ${provider}`] ? provider : 'wasm'
    const device = { [SESSIONS[part]]: provider, [SESSIONS[other]]: beside }
    const { AutoModel } = transformers
    const options = /** @type {any} */ ({ device, dtype: loaded.manifest.dtype ?? 'fp32' })
    models[`${part} ${provider}`] = await AutoModel.from_pretrained(NAME, options)
    return { milliseconds: created[`${part} ${provider}`].milliseconds }
  },

  /**
   * Where the nodes of a part are, by a session of its own of the same onnxruntime-web.
   *
   * @param {{ part: Part, provider: Provider }} step
   */
  async nodes({ part, provider }) {
    const bytes = loaded.files[part].slice() // else it were the one there is
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
    const [found, milliseconds] = await timed(() =>
      model.get_image_embeddings({ pixel_values: input }),
    )
    embeddings ??= found
    const outputs = loaded.manifest.encoder.outputs.map(({ name, role }) => [role, found[name]])
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
    if (previous) throw new Error('transformers.js takes no mask to refine')
    const inputs = await processor(picture, asked(prompts))
    const model = models[`decoder ${provider}`]
    const [, report] = await decodeRuns(runs, async () =>
      answers(loaded.manifest, await model({ ...embeddings, ...inputs })),
    )
    return { ...report, mask_input: null }
  },
})

/** Prompts as the processor takes them, in the image's pixels. @param {Prompt[]} prompts */
function asked(prompts) {
  const points = prompts.map((prompt) => prompt.points.map(({ x, y }) => [x, y]))
  const labels = prompts.map((prompt) => prompt.points.map((point) => Number(point.foreground)))
  const boxes = prompts.flatMap(({ box }) => (box ? [box] : []))
  return {
    ...(points[0].length ? { input_points: points, input_labels: labels } : {}),
    ...(boxes.length ? { input_boxes: [boxes] } : {}),
  }
}
