// The steps of the browser stage for tracking: tracker.js follows objects through a few frames.
//
// The stage calls the steps, and compares the results with those of its own tracker.

import { inputSize } from '../shared/contract.js'
import { loadImage, scaledPixels } from '../shared/image.js'
import { encode, timed } from '../shared/model.js'
import { placement } from '../shared/preprocessing.js'
import { Loaded } from './session-steps.js'
import { allPosted, offer } from './steps.js'
import { Tracker } from '../shared/tracker.js'
import { graphRunner } from '../shared/tracking-graphs.js'

/** @typedef {import('../shared/model.js').Provider} Provider */
/** @typedef {{ lowResMasks: Float32Array, pointer: Float32Array, iou: number }} Result */

const loaded = new Loaded()
/** @type {Tracker} */
let tracker
/** @type {ReturnType<Tracker['track']>} */
let following

offer({
  ...loaded.steps,

  /**
   * Begin with a sequence. Each frame is encoded when it is first needed.
   *
   * @param {{ provider: Provider, frames: string[] }} step the frames' addresses, each as large as
   *   the encoder's input
   */
  async begin({ provider, frames }) {
    const { manifest, runtimes } = loaded
    if (!manifest.video) throw new Error('manifest.json has no `video`')
    const size = inputSize(manifest)
    const place = placement(size, size, size, 'stretch')
    const ort = runtimes[provider]
    /** @type {Record<number, Promise<import('../shared/tracker.js').Features>>} */
    const features = {}
    /** @param {number} frame */
    const encoded = async (frame) => {
      const pixels = scaledPixels(await loadImage(frames[frame]), place)
      const session = loaded.session('encoder', provider)
      const outputs = await encode(ort, session, manifest, pixels, place)
      return /** @type {import('../shared/tracker.js').Features} */ (outputs)
    }
    tracker = new Tracker({
      constants: manifest.video,
      run: graphRunner(ort, (graph) => loaded.session(graph, provider)),
      features: (frame) => (features[frame] ??= encoded(frame)),
      frames: { count: frames.length, width: size, height: size },
      store: new Map(),
    })
    return {}
  },

  /**
   * @param {{ frame: number, object: number, prompt: import('../shared/tracker.js').Prompt,
   *   mask: string | null }} step a mask as base64, a byte for each pixel
   */
  async prompt({ frame, object, prompt, mask }) {
    const { width, height } = tracker.frames
    const data = mask && Uint8Array.from(atob(mask), (character) => character.charCodeAt(0))
    const whole = data ? { mask: { data, width, height } } : prompt
    const [result, milliseconds] = await timed(() => tracker.prompt(frame, object, whole))
    return { milliseconds, ...(await answer(result, result.score)) }
  },

  /** @param {{ from: number, reverse: boolean }} step */
  async follow({ from, reverse }) {
    following = tracker.track({ from, reverse })
    return {}
  },

  /** Track the next frame, and return its objects; the frame is null at the end. */
  async next() {
    const [{ value, done }, milliseconds] = await timed(() => following.next())
    if (done) return { frame: null }
    const { frame, objects } = /** @type {any} */ (value)
    const answers = []
    for (const each of objects) {
      answers.push({ object: each.object, ...(await answer(each, each.objectScore)) })
    }
    return { milliseconds, frame, objects: answers }
  },
})

/** A result in JSON's form. @param {Result} result @param {number} score */
async function answer({ lowResMasks, pointer, iou }, score) {
  const side = Math.sqrt(lowResMasks.length)
  const values = {
    low_res_masks: { data: lowResMasks, dims: [1, 1, side, side] },
    pointer: { data: pointer, dims: [1, pointer.length] },
  }
  return { score, iou, values: await allPosted(values) }
}
