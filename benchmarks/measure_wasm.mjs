// Measures one graph in onnxruntime-web (WASM, two threads) under Node; prints JSON.
//
//     node measure_wasm.mjs GRAPH RUNS
//
// Milliseconds to create a session and the median of a run after one that is not counted.
import { readFileSync } from 'node:fs'
import * as ort from 'onnxruntime-web'

ort.env.wasm.numThreads = 2
ort.env.logLevel = 'error'

const [path, runs] = process.argv.slice(2)

function inputOf({ name, shape }) {
  const sizes = shape.map((size, axis) => (typeof size === 'number' ? size : axis === 0 ? 1 : 2))
  const data = Float32Array.from({ length: sizes.reduce((a, b) => a * b, 1) }, (_, i) =>
    name === 'point_labels' ? 1
    : name === 'has_mask_input' ? 0
    : name === 'point_coords' ? 300 + i
    : Math.sin(i * 0.37),
  )
  return [name, new ort.Tensor('float32', data, sizes)]
}

try {
  let start = performance.now()
  const session = await ort.InferenceSession.create(readFileSync(path), {
    executionProviders: ['wasm'],
  })
  const create = performance.now() - start
  const feeds = Object.fromEntries(session.inputMetadata.map(inputOf))
  await session.run(feeds)
  const times = []
  for (let i = 0; i < Number(runs); i++) {
    start = performance.now()
    await session.run(feeds)
    times.push(performance.now() - start)
  }
  times.sort((a, b) => a - b)
  console.log(JSON.stringify({ create, run: times[times.length >> 1] }))
} catch (error) {
  console.log(JSON.stringify({ error: String(error.message ?? error) }))
}
process.exit(0)
