// The open image or sequence, and where it lies in the encoder's input.

import { openFiles } from '../frames/sequence.js'
import { inputSize } from '../shared/contract.js'
import { WHOLE } from '../image/crop.js'
import { scaledPixels } from '../shared/image.js'
import { placement } from '../shared/preprocessing.js'
import { advice } from './advice.js'
import { ui } from './elements.js'
import { complain, duration, hideProgress, say, settle, showProgress, words } from './messages.js'
import { explain } from './model-panel.js'

/** @typedef {import('../frames/sequence.js').Sequence} Sequence */
/** @typedef {import('../shared/preprocessing.js').Placement} Placement */
/** @typedef {import('./worker-client.js').Model} Model */

export class OpenImage {
  /** @type {Sequence | null} */
  current = null
  /** Null until the image is encoded. @type {Placement | null} */
  place = null
  /** The model that answered the prompts. @type {Model | null} */
  answeredBy = null
  encoding = false
  attempts = 0

  /** @param {import('../page.js').Page} page */
  constructor(page) {
    this.page = page
    ui.sample.onclick = () => void this.open(sample)
    ui.file.onchange = () => {
      if (ui.file.files?.length) void this.open([...ui.file.files])
      ui.file.value = '' // so that the same file can be opened again
    }
    document.addEventListener('dragover', (event) => {
      event.preventDefault()
      ui.stage.classList.add('dropping')
    })
    document.addEventListener('dragleave', () => ui.stage.classList.remove('dropping'))
    document.addEventListener('drop', (event) => {
      event.preventDefault()
      ui.stage.classList.remove('dropping')
      if (event.dataTransfer?.files.length) void this.open([...event.dataTransfer.files])
    })
  }

  /** Whether the open image has several frames. */
  get isSequence() {
    return (this.current?.count ?? 1) > 1
  }

  /** @param {File[] | (() => Promise<File[]>)} files */
  async open(files) {
    const { page } = this
    const attempt = ++this.attempts
    const isLatest = () => attempt === this.attempts
    settle('image', 'work')
    /** @type {Sequence} */
    let opened
    /** @type {File[]} */
    let these
    try {
      these = typeof files === 'function' ? await files() : files
      opened = await openFiles(these, (done, total) => {
        if (isLatest()) showProgress('Reading', done, total, 'frames')
      })
    } catch (error) {
      if (!isLatest()) return
      if (!page.isBusy) hideProgress()
      // A file of the page itself (the sample, or a format's reader) could not be fetched.
      const isUnreachable = error instanceof TypeError
      const advice = isUnreachable ? '\nIs the server of this page running and reachable?' : ''
      complain('image', words(error) + advice, isUnreachable ? () => void this.open(files) : undefined)
      return
    }
    if (!isLatest()) {
      opened.close()
      return
    }
    hideProgress()
    if (!(await page.work.mayGo(`Opening ${opened.file} discards them.`))) {
      opened.close()
      return
    }
    this.current?.close()
    this.current = opened
    this.place = null
    ui.empty.hidden = true
    page.prompting.restart()
    page.cursor.cross = null
    page.cursor.dropBox()
    page.everything.abandon()
    page.sequence.opened(opened)
    page.planes.opened(opened.planes)
    page.work.opened(these)
    page.display.scene.open(opened.element, opened)
    page.contrast.show(0)
    ui.stage.scrollIntoView() // on a phone the buttons are below the image
    say(`${opened.file} is open.`)
    if (opened.notes.length) complain('image', opened.notes.join('\n'))
    await this.encode()
  }

  /** Show the chosen slice and channels, and encode them. Existing masks stay. */
  async showPlanes() {
    const { sequence } = this.page
    await sequence.redraw()
    this.place = null
    this.page.everything.abandon() // its masks belong to the earlier encoding
    await this.encode()
    await sequence.reload()
  }

  /** Encode with the current levels; earlier answers stay. */
  async encodeAnew() {
    const { page } = this
    page.everything.abandon()
    if (!this.isSequence) {
      this.place = null
      await this.encode()
    } else {
      page.sequence.encoded = null
      if (page.sequence.answers(page.model.current)) await page.model.current?.call('forgetFrames', {})
    }
  }

  /** Encode the open image, then decode its prompts. */
  async encode() {
    this.page.display.refresh()
    if (this.encoding) return // the running loop encodes whatever is open when it ends
    this.encoding = true
    while (await this.encodeOnce());
    this.encoding = false
    await this.page.decoding.run()
  }

  /** @returns {Promise<boolean>} whether another model or image was opened meanwhile */
  async encodeOnce() {
    const { page, current: shown } = this
    const model = page.model.current
    if (!model?.opened || !shown || this.place) return false
    const { isSequence } = this
    const version = () => shown.planes.version + shown.levels.version
    const before = version()
    const isOther = () =>
      page.model.current !== model || this.current !== shown || version() !== before
    explain(model.manifest, page.sequence.answers(model))
    showProgress(isSequence ? 'Getting ready' : 'Encoding the image')
    page.views.forget()
    try {
      const [place, ready] = await (isSequence
        ? page.sequence.ready(model, shown)
        : encodedBy(model, shown))
      if (isOther()) return true
      this.place = place
      if (this.answeredBy !== model) page.prompting.dropAnswers()
      this.answeredBy = model
      page.views.tell()
      say(ready)
    } catch (error) {
      if (isOther()) return true
      const what = isSequence ? 'The model is not ready for frames.' : 'The encoder failed.'
      complain('work', `${what}\n${words(error)}`, () => void this.encode())
    }
    hideProgress()
    page.display.enable()
    return false
  }
}

/**
 * Encode a single image.
 *
 * @param {Model} model
 * @param {Sequence} image
 * @returns {Promise<[Placement, string]>} its placement, and a sentence for the status
 */
async function encodedBy(model, image) {
  const { manifest } = model
  const { resize } = manifest.preprocessing
  const place = placement(image.width, image.height, inputSize(manifest), resize)
  const milliseconds = await encodeFrame(image, 0, model, place)
  const ready = `Encoded in ${duration(milliseconds)}. Click what to segment.`
  return [place, `${ready} ${advice(manifest, milliseconds)}`]
}

/**
 * @param {Sequence} image
 * @param {number} frame
 * @param {Model} model
 * @param {Placement} place
 * @param {string} [name] of this encoding
 * @param {string[]} [kept] names of other encodings to keep
 * @returns {Promise<number>} milliseconds that the encoder took
 */
export async function encodeFrame(image, frame, model, place, name = WHOLE, kept = []) {
  const rgba = scaledPixels(await image.read(frame), place)
  const { milliseconds } = await model.call('encode', { rgba, place, name, kept })
  ui.encoderTime.textContent = duration(milliseconds)
  return milliseconds
}

async function sample() {
  const response = await fetch('sample.svg')
  if (!response.ok) throw new TypeError(`sample.svg: HTTP ${response.status}`)
  const picture = await response.blob()
  return [new File([picture], 'sample.svg', { type: picture.type })]
}
