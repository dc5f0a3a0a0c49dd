// The page's side of worker.js.

import { words } from '../shared/words.js'

/** A model in its own worker: closing it stops running calls and frees its memory. */
export class Model {
  /**
   * @param {import('../shared/contract.js').Manifest} manifest
   * @param {(phase: string, done?: number, total?: number, unit?: string) => void} onProgress
   */
  constructor(manifest, onProgress) {
    this.manifest = manifest
    /** Whether its sessions are ready. */
    this.opened = false
    /** @type {Map<number, { resolve: (result: any) => void, reject: (error: Error) => void,
     *   onPart?: (part: any) => void }>} */
    this.waiting = new Map()
    /** Returns a frame of the sequence that the worker requests, RGBA at the encoder's size.
     * @type {(frame: number) => Promise<Uint8ClampedArray>} */
    this.pixelsOf = async () => {
      throw new Error('no sequence is open')
    }
    this.calls = 0
    this.worker = new Worker(new URL('../worker.js', import.meta.url), { type: 'module' })
    this.worker.onmessage = ({ data: { id, progress, wanted, part, result, error } }) => {
      const call = this.waiting.get(id)
      if (wanted !== undefined) void this.give(wanted)
      else if (part) call?.onPart?.(part)
      else if (progress) onProgress(progress.phase, progress.done, progress.total, progress.unit)
      else {
        this.waiting.delete(id)
        if (error === undefined) call?.resolve(result)
        else call?.reject(new Error(error))
      }
    }
    this.worker.onerror = (event) => this.fail(event.message)
  }

  /**
   * @param {string} call one of worker.js's calls
   * @param {object} args
   * @param {AbortSignal} [signal] stops a long call, which then returns null
   * @param {(part: any) => void} [onPart] gets partial results before the call ends
   * @returns {Promise<any>}
   */
  call(call, args, signal, onPart) {
    const id = this.calls++
    signal?.addEventListener('abort', () => this.worker.postMessage({ stop: id }))
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject, onPart })
      this.worker.postMessage({ id, call, args })
    })
  }

  /** @param {number} frame */
  async give(frame) {
    try {
      const rgba = await this.pixelsOf(frame)
      this.worker.postMessage({ rgba }, [rgba.buffer])
    } catch (error) {
      this.worker.postMessage({ error: words(error) })
    }
  }

  /** End the worker; unanswered calls fail. */
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
