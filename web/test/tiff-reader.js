// Reads TIFFs as the page does, for tests/test_tiff.py: prints a description of each as a line of JSON,
// and writes its samples beside it, 64 bits each: by frame, slice, channel and plane.
import { readFileSync, writeFileSync } from 'node:fs'
import { basename } from 'node:path'

import { geotiff } from '../page/frames/geotiff.js'
import { openTiff } from '../page/frames/tiff.js'

geotiff(() => import('geotiff'))

for (const path of process.argv.slice(2)) {
  const start = performance.now()
  try {
    const stack = await openTiff(new File([readFileSync(path)], basename(path)))
    const planes = []
    const all = stack.channels.map((_, channel) => channel)
    for (let frame = 0; frame < stack.frames; frame++) {
      for (let slice = 0; slice < stack.slices; slice++) {
        planes.push(...(await stack.read(frame, slice, all)).flatMap((samples) => samples.planes))
      }
    }
    const values = new Float64Array(planes.flatMap((plane) => [...plane]))
    writeFileSync(`${path}.samples`, values)
    const { read, ...about } = stack
    console.log(JSON.stringify({ ...about, seconds: (performance.now() - start) / 1000 }))
  } catch (error) {
    const { message } = /** @type {Error} */ (error)
    console.log(JSON.stringify({ error: message, seconds: (performance.now() - start) / 1000 }))
  }
}
