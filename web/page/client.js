// The page's side of worker.js.

/** A model in a worker of its own: closing it stops whatever runs and gives its memory back. */
export class Model {
  /**
   * @param {import('./contract.js').Manifest} manifest
   * @param {(phase: string, done?: number, total?: number, unit?: string) => void} onProgress
   */
  constructor(manifest, onProgress) {
    this.manifest = manifest
    /** Whether its sessions are ready. */
    this.opened = false
    /** @type {Map<number, { resolve: (result: any) => void, reject: (error: Error) => void }>} */
    this.waiting = new Map()
    this.calls = 0
    this.worker = new Worker('worker.js', { type: 'module' })
    this.worker.onmessage = ({ data: { id, progress, result, error } }) => {
      if (progress) {
        onProgress(progress.phase, progress.done, progress.total, progress.unit)
        return
      }
      const call = this.waiting.get(id)
      this.waiting.delete(id)
      if (error === undefined) call?.resolve(result)
      else call?.reject(new Error(error))
    }
    this.worker.onerror = (event) => this.fail(event.message)
  }

  /**
   * @param {string} call one of worker.js's calls
   * @param {object} args
   * @param {AbortSignal} [signal] asks a call that takes long to stop; it answers null then
   * @returns {Promise<any>}
   */
  call(call, args, signal) {
    const id = this.calls++
    signal?.addEventListener('abort', () => this.worker.postMessage({ stop: id }))
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject })
      this.worker.postMessage({ id, call, args })
    })
  }

  /** What is not answered yet fails. */
  close() {
    this.worker.terminate()
    this.fail('the model was closed')
  }

  /** @param {string} reason */
  fail(reason) {
    for (const { reject } of this.waiting.values()) reject(new Error(reason))
    this.waiting.clear()
  }
}
