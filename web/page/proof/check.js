// The steps of the browser stage: fetch, create, encode, decode, each timed.
//
// The stage calls them through `window.check` and compares the results.

import { inputShape, inputSize } from '../shared/contract.js'
import { best, maskAt } from '../shared/feeds.js'
import { loadImage, scaledPixels } from '../shared/image.js'
import { decode, encode, timed } from '../shared/model.js'
import { imageTensor, placement } from '../shared/preprocessing.js'
import { Loaded } from './session-steps.js'
import { allPosted, decodeRuns, offer, posted } from './steps.js'

/** @typedef {import('../shared/feeds.js').Answers} Answers */
/** @typedef {import('../shared/model.js').Provider} Provider */

const loaded = new Loaded()
/** @type {import('../shared/preprocessing.js').Placement} */
let place
/** @type {import('../shared/feeds.js').Features} of the image, as first computed */
let features
/** The image's address. */
let encoded = ''
/** @type {Record<string, Answers>} */
const answers = {}

offer({
  ...loaded.steps,

  /** @param {{ provider: Provider, image: string }} step */
  async encode({ provider, image }) {
    const { manifest, runtimes } = loaded
    const picture = await loadImage(image)
    const size = inputSize(manifest)
    const { resize } = manifest.preprocessing
    place = placement(picture.naturalWidth, picture.naturalHeight, size, resize)
    const pixels = scaledPixels(picture, place)
    const session = loaded.session('encoder', provider)
    const [outputs, milliseconds] = await timed(() =>
      encode(runtimes[provider], session, manifest, pixels, place),
    )
    if (image !== encoded) [features, encoded] = [outputs, image]
    const tensor = imageTensor(pixels, place, manifest.preprocessing)
    const input = { data: tensor, dims: inputShape(manifest) }
    return { milliseconds, values: await allPosted({ ...outputs, image: input }) }
  },

  /**
   * Take an image's embedding from the server, for a decoder without an encoder.
   *
   * @param {{ dims: number[], width: number, height: number, size: number,
   *   resize: import('../shared/preprocessing.js').Resize }} step its shape; the image's size and
   *   the encoder's, in pixels
   */
  async take({ dims, width, height, size, resize }) {
    const response = await fetch('/image/embedding.bin')
    if (!response.ok) throw new Error(`the embedding: HTTP ${response.status}`)
    const data = new Float32Array(await response.arrayBuffer())
    place = placement(width, height, size, resize)
    features = { image_embed: { data, dims } }
    return {}
  },

  /**
   * Decode a prompt, or several of one kind; `previous` names earlier prompts whose best masks they
   * refine.
   *
   * @param {{ provider: Provider, name: string, previous?: string | null, runs: number,
   *   prompt: import('../shared/preprocessing.js').Prompt,
   *   prompts?: import('../shared/preprocessing.js').Prompt[] }} step
   */
  async decode({ provider, name, previous, prompt, prompts = [prompt], runs }) {
    const { manifest, runtimes } = loaded
    const session = loaded.session('decoder', provider)
    const refined = previous ? bestMasks(answers[previous]) : null
    const [answer, report] = await decodeRuns(runs, () =>
      decode(runtimes[provider], session, manifest, features, prompts, place, refined),
    )
    answers[name] ??= answer
    const sizes = [refined?.length ?? 0, 1, ...answer.masks.dims.slice(2)]
    return { ...report, mask_input: refined && (await posted({ data: refined, dims: sizes })) }
  },
})

/** The best mask of each prompt. @param {Answers} answer */
function bestMasks({ masks, scores }) {
  const [count, each] = scores.dims
  return Array.from({ length: count }, (_, prompt) => {
    const own = scores.data.subarray(prompt * each, (prompt + 1) * each)
    return maskAt(masks, best(loaded.manifest, own), prompt)
  })
}
