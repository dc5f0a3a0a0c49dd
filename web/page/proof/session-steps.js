// The steps of a proof's page that make sessions of a model's files, for pages that run
// onnxruntime-web themselves.

import { createSession, runtime } from '../shared/model.js'
import { nodePlacement } from './node-placement.js'
import { loadPart, logged, readEnvironment, timed } from './steps.js'

/** @typedef {import('../shared/model.js').Provider} Provider */
/** @typedef {import('../shared/model.js').Runtime} Runtime */
/** @typedef {import('../shared/model.js').Session} Session */

/** What the steps have made so far. */
export class Loaded {
  /** @type {import('../shared/contract.js').Manifest} */
  manifest = /** @type {any} */ (null)
  /** @type {Record<string, Uint8Array>} by the graph's name */
  files = {}
  /** @type {Record<string, Runtime>} by provider */
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
        const [found, answer] = await readEnvironment()
        this.manifest = found
        return answer
      },

      /** @param {{ part: string }} step */
      load: async ({ part }) => {
        const [bytes, milliseconds] = await loadPart(this.manifest, part)
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
