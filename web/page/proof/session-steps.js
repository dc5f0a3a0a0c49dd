// The steps of a proof's page that load a model's files and create sessions from them.

import { adapter, createSession, fetchFile, runtime, timed } from '../shared/model.js'
import { nodePlacement } from './node-placement.js'
import { logged } from './steps.js'

/** @typedef {import('../shared/model.js').Provider} Provider */
/** @typedef {import('../shared/model.js').Session} Session */
/** @typedef {import('onnxruntime-web').InferenceSession.ExecutionProviderConfig} ProviderConfig */
/** @typedef {'NHWC' | 'NCHW'} Layout */

/** The model's address on the server. */
export const BASE = '/model'

/** A module that only has SIMD instructions (i32x4.splat, i8x16.popcnt). */
const SIMD = Uint8Array.of(
  ...[0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0],
  ...[10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11],
)

/** The results of the steps so far. */
export class Loaded {
  /** @type {import('../shared/contract.js').Manifest & { dtype?: any }} */
  manifest = /** @type {any} */ (null)
  /** @type {Record<string, Uint8Array<ArrayBuffer>>} by the graph's name */
  files = {}
  /** @type {Record<string, import('../shared/model.js').Runtime>} by provider */
  runtimes = {}
  /** @type {Record<string, ProviderConfig>} the configuration for sessions, by provider */
  #providers = {}
  /** @type {Record<string, Session>} */
  #sessions = {}

  /** @param {string} part @param {Provider} provider @returns {Session} */
  session(part, provider) {
    return this.#sessions[`${part} ${provider}`]
  }

  get steps() {
    return {
      /** The browser's features. */
      environment: async () => {
        this.manifest = await (await fetch(`${BASE}/manifest.json`)).json()
        return {
          isolated: crossOriginIsolated,
          adapter: await adapter().catch(() => null),
          shared: typeof SharedArrayBuffer === 'function',
          jspi: 'Suspending' in WebAssembly,
          simd: WebAssembly.validate(SIMD),
        }
      },

      /** @param {{ part: string }} step */
      load: async ({ part }) => {
        const { encoder, decoder, files, video } = this.manifest
        const name = { encoder: encoder?.file, decoder: decoder.file, ...video?.files }[part]
        if (!name) throw new Error(`manifest.json lists no file for ${part}`)
        const [bytes, milliseconds] = await timed(() =>
          fetchFile(`${BASE}/${name}`, files[name], () => {}),
        )
        this.files[part] = bytes
        return { milliseconds }
      },

      /**
       * Start onnxruntime-web by creating its first session, of an identity graph.
       *
       * @param {{ provider: Provider, threads: number, nothing: number[], bundle: string,
       *   layout: Layout | null }} step the build's address; the preferred layout for WebGPU
       */
      start: async ({ provider, threads, nothing, bundle, layout }) => {
        const config = layout ? { name: provider, preferredLayout: layout } : provider
        this.#providers[provider] = /** @type {ProviderConfig} */ (config)
        const [ort, milliseconds] = await timed(async () => {
          const ort = await runtime(provider, threads, bundle)
          await createSession(ort, Uint8Array.from(nothing), config)
          return ort
        })
        this.runtimes[provider] = ort
        return { milliseconds, version: ort.env.versions.web }
      },

      /** @param {{ part: string, provider: Provider }} step */
      create: async ({ part, provider }) => {
        const [session, milliseconds] = await timed(() =>
          createSession(this.runtimes[provider], this.files[part], this.#providers[provider]),
        )
        this.#sessions[`${part} ${provider}`] = session
        return { milliseconds }
      },

      /**
       * The provider of each node of a part, from a separate session: a session that logs this also
       * logs each run.
       *
       * @param {{ part: string, provider: Provider }} step
       */
      nodes: async ({ part, provider }) => {
        const lines = await logged(async () => {
          const options = { logSeverityLevel: /** @type {const} */ (0) }
          const ort = this.runtimes[provider]
          const config = this.#providers[provider]
          await (await createSession(ort, this.files[part], config, options)).release()
        })
        return { placement: nodePlacement(lines) }
      },
    }
  }
}
