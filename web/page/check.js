// What the browser stage has a page do, step by step: fetch, create, encode, decode, each timed.
//
// The stage calls these through `window.check` and compares what comes back.

import { inputSize } from './contract.js'
import { best, maskAt } from './feeds.js'
import { loadImage, scaledPixels } from './image.js'
import { createSession, decode, encode, runtime } from './model.js'
import { nodePlacement } from './placement.js'
import { imageTensor, placement } from './preprocessing.js'
import { allPacked, loadPart, logged, offer, packed, readEnvironment, timed } from './steps.js'

/** @typedef {import('./feeds.js').Answers} Answers */
/** @typedef {import('./model.js').Provider} Provider */

/** @type {import('./contract.js').Manifest} */
let manifest
/** @type {Record<string, Uint8Array>} */
const files = {}
/** @type {Record<string, import('./model.js').Runtime>} */
const runtimes = {}
/** @type {Record<string, import('./model.js').Session>} */
const sessions = {}
/** @type {import('./preprocessing.js').Placement} */
let place
/** @type {import('./feeds.js').Features} */
let features
/** @type {Record<string, Answers>} */
const answers = {}

offer({
  /** Where this runs. */
  async environment() {
    const [found, answer] = await readEnvironment()
    manifest = found
    return answer
  },

  /** @param {{ part: 'encoder' | 'decoder' }} step */
  async load({ part }) {
    const [bytes, milliseconds] = await loadPart(manifest, part)
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
    const size = inputSize(manifest)
    const { resize } = manifest.preprocessing
    place = placement(picture.naturalWidth, picture.naturalHeight, size, resize)
    const pixels = scaledPixels(picture, place)
    const session = sessions[`encoder ${provider}`]
    const [found, milliseconds] = await timed(() =>
      encode(runtimes[provider], session, manifest, pixels, place),
    )
    features ??= found
    const tensor = imageTensor(pixels, place, manifest.preprocessing)
    const input = { data: tensor, dims: [1, 3, size, size] }
    return { milliseconds, values: await allPacked({ ...found, image: input }) }
  },

  /**
   * Decode a prompt, or several of one kind; `previous` names earlier ones whose best masks they
   * refine.
   *
   * @param {{ provider: Provider, name: string, previous?: string | null, runs: number,
   *   prompt: import('./preprocessing.js').Prompt,
   *   prompts?: import('./preprocessing.js').Prompt[] }} step
   */
  async decode({ provider, name, previous, prompt, prompts = [prompt], runs }) {
    const session = sessions[`decoder ${provider}`]
    const refined = previous ? bestMasks(answers[previous]) : null
    const found = []
    for (let run = 0; run < runs; run++) {
      found.push(
        await timed(() =>
          decode(runtimes[provider], session, manifest, features, prompts, place, refined),
        ),
      )
    }
    const [{ masks, scores, objects }] = found[runs - 1]
    answers[name] ??= { masks, scores, objects }
    const values = { masks, iou_predictions: scores }
    const sizes = [refined?.length ?? 0, 1, ...masks.dims.slice(2)]
    return {
      times: found.map(([, milliseconds]) => milliseconds),
      values: await allPacked(objects ? { ...values, object_score_logits: objects } : values),
      mask_input: refined && (await packed({ data: refined, dims: sizes })),
    }
  },
})

/** The best mask of each prompt. @param {Answers} answer */
function bestMasks({ masks, scores }) {
  const [count, each] = scores.dims
  return Array.from({ length: count }, (_, prompt) => {
    const own = scores.data.subarray(prompt * each, (prompt + 1) * each)
    return maskAt(masks, best(manifest, own), prompt)
  })
}
