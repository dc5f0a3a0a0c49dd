// Runs a tracker's graphs with onnxruntime-web.

/** @typedef {import('./feeds.js').Values} Values */
/** @typedef {import('./model.js').Session} Session */

/**
 * The function with which a tracker runs graphs.
 *
 * @param {import('./model.js').Runtime} ort
 * @param {(graph: import('./tracker.js').Graph) => Session | Promise<Session>} session
 * @returns {import('./tracker.js').Run}
 */
export function graphRunner(ort, session) {
  return async (graph, feeds) => {
    const made = await session(graph)
    const tensors = made.inputNames.map((name) => {
      const { dtype, data, dims } = feeds[name]
      return [name, new ort.Tensor(/** @type {any} */ (dtype), data, dims)]
    })
    const outputs = Object.entries(await made.run(Object.fromEntries(tensors)))
    return Object.fromEntries(
      outputs.map(([name, { data, dims }]) => [name, /** @type {Values} */ ({ data, dims })]),
    )
  }
}
