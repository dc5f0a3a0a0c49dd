// The steps of a proof's page that load a model's files and make sessions of them.

import { adapter, createSession, fetchFile, runtime, timed } from '../shared/model.js'
import { nodePlacement } from './node-placement.js'
import { logged } from './steps.js'

/** @typedef {import('../shared/model.js').Provider} Provider */
/** @typedef {import('../shared/model.js').Session} Session */

/** Where the server has the model. */
export const BASE = '/model'

/** What the steps have made so far. */
export class Loaded {
  /** @type {import('../shared/contract.js').Manifest & { dtype?: any }} */
  manifest = /** @type {any} */ (null)
  /** @type {Record<string, Uint8Array<ArrayBuffer>>} by the graph's name */
  files = {}
  /** @type {Record<string, import('../shared/model.js').Runtime>} by provider */
  runtimes = {}
  /** @type {Record<string, Session>} */
  #sessions = {}

  /** @param {string} part @param {Provider} provider @returns {Session} */
  session(part, provider) {
    return this.#sessions[`${part} ${provider}`]
  }

  get steps() {
    return {
      /** Where this runs. */
      environment: async () => {
        this.manifest = await (await fetch(`${BASE}/manifest.json`)).json()
        return { isolated: crossOriginIsolated, adapter: await adapter().catch(() => null) }
      },

      /** @param {{ part: string }} step */
      load: async ({ part }) => {
        const { encoder, decoder, files, video } = this.manifest
        const name = { encoder: encoder?.file, decoder: decoder.file, ...video?.files }[part]
        if (!name) throw new Error(`manifest.json names no file of ${part}`)
        const [bytes, milliseconds] = await timed(() =>
          fetchFile(`${BASE}/${name}`, files[name], () => {}),
        )
        this.files[part] = bytes
        return { milliseconds }
      },

      /**
       * Start onnxruntime-web, which it does with its first session: one of a graph that does
       * nothing.
       *
       * @param {{ provider: Provider, threads: number, nothing: number[] }} step
       */
      start: async ({ provider, threads, nothing }) => {
        const [ort, milliseconds] = await timed(async () => {
          const ort = await runtime(provider, threads)
          await createSession(ort, Uint8Array.from(nothing), provider)
          return ort
        })
        this.runtimes[provider] = ort
        return { milliseconds, version: ort.env.versions.web }
      },

      /** @param {{ part: string, provider: Provider }} step */
      create: async ({ part, provider }) => {
        const [session, milliseconds] = await timed(() =>
          createSession(this.runtimes[provider], this.files[part], provider),
        )
        this.#sessions[`${part} ${provider}`] = session
        return { milliseconds }
      },

      /**
       * Where the nodes of a part are, by a session of its own: one that logs this logs each run
       * too.
       *
       * @param {{ part: string, provider: Provider }} step
       */
      nodes: async ({ part, provider }) => {
        const lines = await logged(async () => {
          const options = { logSeverityLevel: /** @type {const} */ (0) }
          const ort = this.runtimes[provider]
          await (await createSession(ort, this.files[part], provider, options)).release()
        })
        return { placement: nodePlacement(lines) }
      },
    }
  }
}
