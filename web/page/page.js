// The page of `doit serve`: pick a deployed model, open an image, prompt, see the mask.

import { Model } from './client.js'
import { inputSize, refines } from './contract.js'
import { boxOutline, crossHair, objectNumbers, promptMarks, tinted } from './drawing.js'
import { best, maskAt } from './feeds.js'
import { loadImage, scaledPixels } from './image.js'
import { adapter, threadsHere } from './model.js'
import { maskOver, placement } from './preprocessing.js'

/** @typedef {import('./contract.js').Manifest} Manifest */
/** @typedef {import('./model.js').Provider} Provider */
/** @typedef {import('./preprocessing.js').Placement} Placement */
/** @typedef {import('./preprocessing.js').Prompt} Prompt */
/**
 * @typedef {object} Answer
 * @property {import('./feeds.js').Values} masks
 * @property {Float32Array} scores
 * @property {number} milliseconds
 */
/**
 * One state of the prompt; undo goes back to the one before.
 *
 * @typedef {object} Step
 * @property {Prompt} prompt in image pixels
 * @property {Step | null} refines the step whose mask it starts from
 * @property {Answer | null} answer null until the decoder has run
 * @property {number | null} choice the mask a person chose; null is the best-scored
 * @property {number} since when it was asked for, in the page's time
 */

/**
 * The objects of the whole image.
 *
 * @typedef {object} Everything
 * @property {Uint8Array} labels for each pixel of what is drawn the number of its object, or 0
 * @property {{ x: number, y: number }[]} middles of the objects, in image parts
 * @property {number} prompts how many were asked
 * @property {number} milliseconds
 */

/** Longer side of what is drawn, in pixels. */
const VIEW = 1024
/** How far the pointer moves, in image parts, until a click is a drag. */
const DRAG = 0.01

/** @template {HTMLElement} T @param {string} id @param {new () => T} kind @returns {T} */
function element(id, kind) {
  const found = document.getElementById(id)
  if (!(found instanceof kind)) throw new Error(`the page lacks #${id}`)
  return found
}

const ui = {
  stage: element('stage', HTMLElement),
  view: element('view', HTMLElement),
  empty: element('empty', HTMLElement),
  image: element('image', HTMLCanvasElement),
  overlay: element('overlay', HTMLCanvasElement),
  model: element('model', HTMLSelectElement),
  about: element('about', HTMLElement),
  variants: element('variants', HTMLElement),
  variant: element('variant', HTMLSelectElement),
  provider: element('provider', HTMLSelectElement),
  webgpu: element('webgpu', HTMLElement),
  file: element('file', HTMLInputElement),
  sample: element('sample', HTMLButtonElement),
  waiting: element('waiting', HTMLElement),
  phase: element('phase', HTMLElement),
  progress: element('progress', HTMLProgressElement),
  cancel: element('cancel', HTMLButtonElement),
  prompting: element('prompting', HTMLFieldSetElement),
  refine: element('refine', HTMLInputElement),
  undo: element('undo', HTMLButtonElement),
  clear: element('clear', HTMLButtonElement),
  masks: element('masks', HTMLFieldSetElement),
  candidates: element('candidates', HTMLElement),
  save: element('save', HTMLButtonElement),
  everything: element('everything', HTMLFieldSetElement),
  grid: element('grid', HTMLSelectElement),
  leastScore: element('least-score', HTMLInputElement),
  leastStability: element('least-stability', HTMLInputElement),
  segment: element('segment', HTMLButtonElement),
  saveLabels: element('save-labels', HTMLButtonElement),
  encoderTime: element('encoder-time', HTMLElement),
  decoderTime: element('decoder-time', HTMLElement),
  score: element('score', HTMLElement),
  area: element('area', HTMLElement),
  status: element('status', HTMLElement),
  problem: element('problem', HTMLElement),
}
const overlay = /** @type {CanvasRenderingContext2D} */ (ui.overlay.getContext('2d'))

/** @type {Model | null} the one that is open, or being opened */
let model = null
/** @type {{ element: HTMLImageElement, name: string } | null} */
let image = null
/** @type {Placement | null} where the image lies, once it is encoded */
let place = null
/** @type {Step[]} */
let history = []
/** @type {{ x: number, y: number } | null} the keyboard's cross, in image parts */
let cross = null
/** @type {{ x: number, y: number } | null} where a box began, in image parts */
let corner = null
/** @type {{ x: number, y: number } | null} where that box would end now */
let opposite = null
/** @type {Everything | null} shown in place of the prompt */
let everything = null
/** @type {AbortController | null} stops what looks for everything */
let search = null
let encoding = false
let decoding = false

const current = () => history.at(-1) ?? null
const tool = () => {
  const checked = /** @type {HTMLInputElement} */ (document.querySelector('[name=tool]:checked'))
  return checked.value
}

/** @param {string} text */
function say(text) {
  ui.status.textContent = text
}

/** @param {string} [text] none hides it */
function complain(text) {
  ui.problem.hidden = !text
  ui.problem.textContent = text ?? ''
}

/**
 * @param {string} [phase] none hides it
 * @param {number} [done]
 * @param {number} [total]
 * @param {string} [unit] of both
 */
function showProgress(phase, done, total, unit) {
  ui.waiting.hidden = !phase
  ui.cancel.hidden = !search
  if (!phase) return
  if (done === undefined || total === undefined) {
    ui.phase.textContent = `${phase}…`
    ui.progress.removeAttribute('value')
  } else {
    const amount = unit === 'bytes' ? mebibytes : String
    const counted = unit === 'bytes' ? '' : ` ${unit}`
    ui.phase.textContent = `${phase} ${amount(done)} of ${amount(total)}${counted}`
    ui.progress.max = total
    ui.progress.value = done
  }
}

/** @param {number} bytes */
const mebibytes = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MiB`

/** @param {number} time in milliseconds */
const duration = (time) =>
  time < 1000 ? `${time.toFixed(time < 100 ? 1 : 0)} ms` : `${(time / 1000).toFixed(2)} s`

/** @param {unknown} error */
const words = (error) => (error instanceof Error ? error.message : String(error))

// The model.

async function openModel() {
  model?.close()
  model = null
  place = null
  everything = search = null
  complain()
  enable()
  const name = ui.model.value
  const base = `/models/${name}`
  const provider = /** @type {Provider} */ (ui.provider.value)
  /** @type {Model | null} */
  let opening = null
  try {
    const response = await fetch(`${base}/manifest.json`, { cache: 'no-cache' })
    if (!response.ok) throw new Error(`${base}/manifest.json: HTTP ${response.status}`)
    const whole = await response.json()
    if (name !== ui.model.value || provider !== ui.provider.value || model) return
    const manifest = withVariant(whole, offerVariants(whole))
    inputSize(manifest) // refuses a manifest of an earlier version of the build
    ui.about.textContent = describe(manifest)
    model = opening = new Model(manifest, showProgress)
    await opening.call('open', { base, provider, threads: threadsHere(), manifest })
  } catch (error) {
    if (model !== opening) return // another was picked meanwhile
    opening?.close()
    model = null
    showProgress()
    if (provider === 'webgpu') {
      ui.webgpu.textContent = `WebGPU does not run ${name} here, WASM is used: ${words(error)}`
      ui.provider.value = 'wasm'
      await openModel()
      return
    }
    complain(`${name} cannot be used.\n${words(error)}`)
    return
  }
  if (model !== opening) return
  opening.opened = true
  showProgress()
  say(`${name} is ready.${image ? '' : ' Open an image.'}`)
  await encodeImage()
}

/**
 * List the variants that are deployed, and keep the one that was picked if there is such.
 *
 * @param {any} manifest
 * @returns {string | undefined} the name of the one to open
 */
function offerVariants(manifest) {
  /** @type {string[]} */
  const names = (manifest.variants ?? [])
    .filter((/** @type {any} */ { deployed }) => deployed)
    .map((/** @type {any} */ { name }) => name)
  const picked = names.includes(ui.variant.value) ? ui.variant.value : names[0]
  ui.variant.replaceChildren(...names.map((name) => new Option(name)))
  if (picked) ui.variant.value = picked
  ui.variants.hidden = names.length < 2
  return picked
}

/** @param {any} manifest @param {string | undefined} name */
function withVariant(manifest, name) {
  const variant = (manifest.variants ?? []).find((/** @type {any} */ each) => each.name === name)
  if (!variant) return manifest
  return {
    ...manifest,
    encoder: { ...manifest.encoder, file: variant.files.encoder },
    decoder: { ...manifest.decoder, file: variant.files.decoder },
  }
}

/** @param {any} manifest */
function describe(manifest) {
  const sizes = [manifest.encoder, manifest.decoder].map(({ file }) => manifest.files[file].size)
  const total = sizes.reduce((sum, size) => sum + size, 0)
  const trained = manifest.checkpoint?.synthetic ? 'random weights: masks mean nothing' : ''
  const proof = manifest.browser ? `proven in ${manifest.browser.browser}` : 'proven in no browser'
  const architecture = manifest.model_type ?? manifest.config
  return [architecture, mebibytes(total), trained, proof].filter(Boolean).join(' · ')
}

// The image.

/** @param {string} url @param {string} name */
async function openImage(url, name) {
  complain()
  try {
    image = { element: await loadImage(url), name: name.replace(/\.[^.]*$/, '') }
  } catch {
    complain(`${name} is not an image that this browser can read.`)
    return
  }
  const { naturalWidth, naturalHeight } = image.element
  const scale = VIEW / Math.max(naturalWidth, naturalHeight)
  for (const canvas of [ui.image, ui.overlay]) {
    canvas.width = Math.max(1, Math.round(naturalWidth * scale))
    canvas.height = Math.max(1, Math.round(naturalHeight * scale))
  }
  const context = /** @type {CanvasRenderingContext2D} */ (ui.image.getContext('2d'))
  context.imageSmoothingQuality = 'high'
  context.drawImage(image.element, 0, 0, ui.image.width, ui.image.height)
  ui.view.hidden = false
  ui.empty.hidden = true
  history = []
  place = null
  search?.abort()
  everything = search = null
  say(`${name} is open.`)
  await encodeImage()
}

/** Encode what is open, then decode its prompts. */
async function encodeImage() {
  draw()
  if (encoding) return // it goes on until what is open by then is encoded
  encoding = true
  while (await encodeOnce());
  encoding = false
  await decodePrompts()
}

/** @returns {Promise<boolean>} whether another model or image was opened meanwhile */
async function encodeOnce() {
  const [using, shown] = [model, image]
  if (!using?.opened || !shown || place) return false
  const { naturalWidth, naturalHeight } = shown.element
  const { manifest } = using
  const { resize } = manifest.preprocessing
  showProgress('Encoding the image')
  try {
    const found = placement(naturalWidth, naturalHeight, inputSize(manifest), resize)
    const rgba = scaledPixels(shown.element, found)
    const { milliseconds } = await using.call('encode', { rgba, place: found })
    if (model !== using || image !== shown) return true
    place = found
    ui.encoderTime.textContent = duration(milliseconds)
    // Prompts stay when the model changes, its answers do not.
    for (const step of history) Object.assign(step, { answer: null, choice: null })
    say(`Encoded in ${duration(milliseconds)}. Click what to segment.`)
  } catch (error) {
    if (model !== using || image !== shown) return true
    complain(`The encoder failed.\n${words(error)}`)
  }
  showProgress()
  enable()
  return false
}

// The prompt.

/** @param {Partial<Prompt>} change */
function prompt(change) {
  if (!place || search) return
  everything = null
  const before = current()
  const refined = ui.refine.checked && !ui.refine.disabled ? before : null
  const now = { points: [], box: null, ...before?.prompt, ...change }
  const since = performance.now()
  history.push({ prompt: now, refines: refined, answer: null, choice: null, since })
  void decodePrompts()
}

/** @param {{ x: number, y: number }} at in image parts @param {boolean} foreground */
function addPoint(at, foreground) {
  const points = current()?.prompt.points ?? []
  prompt({ points: [...points, { ...inImage(at), foreground }] })
}

/** @param {{ x: number, y: number }} from @param {{ x: number, y: number }} to in image parts */
function setBox(from, to) {
  const [one, other] = [inImage(from), inImage(to)]
  prompt({ box: [one.x, one.y, other.x, other.y] })
}

/** @param {{ x: number, y: number }} at in image parts */
function inImage({ x, y }) {
  const { width, height } = /** @type {Placement} */ (place)
  return { x: x * width, y: y * height }
}

function undo() {
  if (search) return
  if (everything) everything = null
  else history.pop()
  say(current() ? 'Undone.' : 'No prompt.')
  void decodePrompts()
}

function clear() {
  search?.abort()
  everything = null
  history = []
  corner = opposite = null
  say('Cleared.')
  void decodePrompts()
}

/** Run the decoder until the prompt that is shown has its masks, then draw. */
async function decodePrompts() {
  enable()
  if (decoding) return
  decoding = true
  const using = model
  try {
    for (let step = current(); step && place && !step.answer; step = current()) await answer(step)
  } catch (error) {
    if (model === using) complain(`The decoder failed.\n${words(error)}`)
  }
  decoding = false
  draw()
  const step = current()
  if (step?.answer) {
    const detail = { decoder: step.answer.milliseconds }
    performance.measure('prompt to mask', { start: step.since, detail })
  }
  enable()
  announce()
}

/** @param {Step} step @returns {Promise<Answer>} */
async function answer(step) {
  if (!step.answer) {
    const previous = await refinedBy(step)
    step.answer = await model?.call('decode', { prompt: step.prompt, place, previous })
  }
  return /** @type {Answer} */ (step.answer)
}

/** The mask that a step starts from, where the model takes one. @param {Step} step */
async function refinedBy({ refines: before }) {
  if (!before || !model || !refines(model.manifest)) return null
  return logits(before, await answer(before))
}

/** @param {Step} step @param {Answer} found */
const chosen = (step, found) => step.choice ?? (model ? best(model.manifest, found.scores) : 0)

/** The low-resolution mask that is shown. @param {Step} step @param {Answer} found */
const logits = (step, found) => maskAt(found.masks, chosen(step, found))

/** @param {number} width @param {number} height */
function shownMask(width, height) {
  const step = current()
  if (!step?.answer || !place || !model) return null
  const side = step.answer.masks.dims[3]
  const { mask_threshold: threshold } = model.manifest.prompts
  return maskOver(logits(step, step.answer), side, place, width, height, threshold)
}

// Everything.

/** Click on each point of a grid, and show the objects that are found. */
async function segmentEverything() {
  const [using, at] = [model, place]
  if (!using || !at || search) return
  const stop = (search = new AbortController())
  everything = null
  corner = opposite = null
  complain()
  enable()
  draw()
  announce()
  say('Segmenting everything.')
  /** @type {string | null} */
  let problem = null
  try {
    const args = { side: Number(ui.grid.value), place: at }
    const found = await using.call('everything', args, stop.signal)
    const chosen = found && (await objects(ui.overlay))
    if (chosen && search === stop) everything = { ...found, ...chosen }
  } catch (error) {
    problem = words(error)
  }
  if (search !== stop) return // another model or image was opened meanwhile
  search = null
  enable()
  showProgress()
  draw()
  announce()
  if (problem) complain(`The decoder failed.\n${problem}`)
  else if (!everything) say('Cancelled.')
}

/**
 * The objects within the limits that are set now.
 *
 * @param {{ width: number, height: number }} size of their labels
 * @returns {Promise<Pick<Everything, 'labels' | 'middles'>>}
 */
async function objects({ width, height }) {
  const limits = { score: Number(ui.leastScore.value), stability: Number(ui.leastStability.value) }
  return model?.call('objects', { limits, place, width, height })
}

/** Choose anew among the masks that were found. */
async function limit() {
  const before = everything
  if (!before) return
  const chosen = await objects(ui.overlay)
  if (everything !== before) return
  everything = { ...before, ...chosen }
  enable()
  draw()
  announce()
}

// What is seen.

function enable() {
  ui.prompting.disabled = !place || search !== null
  ui.refine.disabled = !model || !refines(model.manifest)
  ui.undo.disabled = ui.clear.disabled = !history.length && !everything
  ui.masks.disabled = !current()?.answer || !place || everything !== null
  ui.everything.disabled = !place || search !== null
  ui.saveLabels.disabled = !everything?.middles.length
}

function draw() {
  const { width, height } = ui.overlay
  overlay.clearRect(0, 0, width, height)
  if (everything) {
    overlay.putImageData(tinted(everything.labels, width, height), 0, 0)
    objectNumbers(overlay, everything.middles)
  } else {
    drawPrompt(width, height)
  }
  if (cross && document.activeElement === ui.overlay) crossHair(overlay, cross)
}

/** @param {number} width @param {number} height */
function drawPrompt(width, height) {
  const step = current()
  const mask = search ? null : shownMask(width, height)
  if (mask) overlay.putImageData(tinted(mask, width, height), 0, 0)
  if (step && place) promptMarks(overlay, step.prompt, width / place.width, height / place.height)
  if (corner && opposite) {
    boxOutline(overlay, [corner.x, corner.y, opposite.x, opposite.y], width, height)
  }
}

/** Say in words and figures what is drawn. */
function announce() {
  const step = current()
  ui.candidates.replaceChildren()
  if (everything) {
    const { labels, middles, prompts, milliseconds } = everything
    const count = middles.length === 1 ? 'One object' : `${middles.length || 'No'} objects`
    const share = (100 * labels.reduce((sum, label) => sum + Math.min(label, 1), 0)) / labels.length
    ui.decoderTime.textContent = `${duration(milliseconds / prompts)} a click`
    ui.score.textContent = '–'
    ui.area.textContent = `${share.toFixed(1)} %`
    say(`${count} found by ${prompts} clicks in ${duration(milliseconds)}.`)
    return
  }
  if (search || !step?.answer) {
    for (const figure of [ui.decoderTime, ui.score, ui.area]) figure.textContent = '–'
    return
  }
  const { scores, milliseconds } = step.answer
  const shown = chosen(step, step.answer)
  scores.forEach((score, index) => {
    const label = document.createElement('label')
    const choice = document.createElement('input')
    choice.type = 'radio'
    choice.name = 'candidate'
    choice.value = String(index)
    choice.checked = index === shown
    choice.onchange = () => choose(index)
    label.append(choice, ` ${index + 1}: ${score.toFixed(3)}`)
    ui.candidates.append(label)
  })
  const mask = /** @type {Uint8Array} */ (shownMask(256, 256))
  const share = (100 * mask.reduce((sum, inside) => sum + inside, 0)) / mask.length
  ui.decoderTime.textContent = duration(milliseconds)
  ui.score.textContent = scores[shown].toFixed(3)
  ui.area.textContent = `${share.toFixed(1)} %`
  const which = scores.length > 1 ? `Mask ${shown + 1} of ${scores.length}` : 'Mask'
  say(`${which}: predicted IoU ${scores[shown].toFixed(2)}, ${share.toFixed(1)} % of the image.`)
}

/** @param {number} index */
function choose(index) {
  const step = current()
  if (ui.masks.disabled || !step?.answer || index >= step.answer.scores.length) return
  const focused = document.activeElement instanceof HTMLInputElement
  step.choice = index
  draw()
  announce()
  const radio = ui.candidates.querySelectorAll('input')[index]
  if (focused) radio.focus()
}

/** Download the mask at the image's own size: white on black. */
async function save() {
  if (!image || !place) return
  const { width, height } = place
  const mask = shownMask(width, height)
  if (!mask) return
  await download(gray(mask, 0xff), width, height, `${image.name}-mask.png`)
}

/** Download the objects at the image's own size: each pixel as bright as its object's number. */
async function saveLabels() {
  if (!image || !place || !everything) return
  const { width, height } = place
  const { name } = image
  const { labels } = await objects(place)
  await download(gray(labels, 1), width, height, `${name}-labels.png`)
}

/**
 * Gray pixels, RGBA.
 *
 * @param {Uint8Array} values
 * @param {number} factor
 */
function gray(values, factor) {
  const pixels = new Uint32Array(values.length)
  values.forEach((value, i) => (pixels[i] = 0xff000000 + value * factor * 0x010101))
  return new Uint8ClampedArray(pixels.buffer)
}

/**
 * @param {Uint8ClampedArray<ArrayBuffer>} rgba
 * @param {number} width
 * @param {number} height
 * @param {string} name
 */
async function download(rgba, width, height, name) {
  const canvas = new OffscreenCanvas(width, height)
  canvas.getContext('2d')?.putImageData(new ImageData(rgba, width, height), 0, 0)
  const link = document.createElement('a')
  link.href = URL.createObjectURL(await canvas.convertToBlob({ type: 'image/png' }))
  link.download = name
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000)
  say(`Saved ${name}.`)
}

// Mouse, touch and keys.

/** @param {MouseEvent} event @returns {{ x: number, y: number }} in image parts */
function position(event) {
  const { left, top, width, height } = ui.overlay.getBoundingClientRect()
  const inside = (/** @type {number} */ part) => Math.min(Math.max(part, 0), 1)
  return { x: inside((event.clientX - left) / width), y: inside((event.clientY - top) / height) }
}

ui.overlay.addEventListener('pointerdown', (event) => {
  if (event.button !== 0 || !place || search) return
  ui.overlay.setPointerCapture(event.pointerId)
  cross = null
  corner = position(event)
  opposite = null
})

ui.overlay.addEventListener('pointermove', (event) => {
  if (!corner || !ui.overlay.hasPointerCapture(event.pointerId)) return
  const at = position(event)
  if (opposite || Math.hypot(at.x - corner.x, at.y - corner.y) > DRAG) {
    opposite = at
    draw()
  }
})

ui.overlay.addEventListener('pointerup', (event) => {
  if (!corner || !ui.overlay.hasPointerCapture(event.pointerId)) return
  const from = corner
  const to = opposite
  corner = opposite = null
  if (to) setBox(from, to)
  else if (tool() === 'box') say('Drag from one corner of the box to the other.')
  else addPoint(from, tool() === 'foreground')
})

ui.overlay.addEventListener('pointercancel', () => {
  corner = opposite = null
  draw()
})

ui.overlay.addEventListener('contextmenu', (event) => {
  event.preventDefault()
  if (place) addPoint(position(event), false)
})

ui.overlay.addEventListener('keydown', (event) => {
  if (!place || event.altKey || event.metaKey) return
  if (event.key === 'Tab' || (event.ctrlKey && event.key !== 'z')) return
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }
  const tools = { f: 'foreground', b: 'background', x: 'box' }
  const key = event.key.toLowerCase()
  if (event.key in moves) {
    const [x, y] = moves[/** @type {keyof typeof moves} */ (event.key)]
    moveCross(x * (event.shiftKey ? 0.05 : 0.005), y * (event.shiftKey ? 0.05 : 0.005))
  } else if (event.key === 'Enter' || event.key === ' ') {
    placeAtCross()
  } else if (key in tools) {
    const value = tools[/** @type {keyof typeof tools} */ (key)]
    const radio = document.querySelector(`[name=tool][value=${value}]`)
    if (radio instanceof HTMLInputElement) radio.checked = true
    say(`Tool: ${value}.`)
  } else if (event.key === 'Backspace' || (event.ctrlKey && key === 'z')) {
    undo()
  } else if (event.key === 'Escape') {
    clear()
  } else if (/^[1-9]$/.test(event.key)) {
    choose(Number(event.key) - 1)
  } else {
    return
  }
  event.preventDefault()
})

/** @param {number} x @param {number} y in image parts */
function moveCross(x, y) {
  const from = cross ?? { x: 0.5, y: 0.5 }
  const inside = (/** @type {number} */ part) => Math.min(Math.max(part, 0), 1)
  cross = { x: inside(from.x + x), y: inside(from.y + y) }
  if (corner) opposite = cross
  draw()
  say(`Cross at ${Math.round(cross.x * 100)} % from the left, ${Math.round(cross.y * 100)} % down.`)
}

function placeAtCross() {
  cross ??= { x: 0.5, y: 0.5 }
  if (tool() !== 'box') {
    addPoint(cross, tool() === 'foreground')
  } else if (corner && opposite) {
    const [from, to] = [corner, opposite]
    corner = opposite = null
    setBox(from, to)
  } else {
    corner = cross
    say('One corner is set. Move to the other and press Enter.')
  }
}

ui.overlay.addEventListener('blur', draw)
ui.undo.onclick = undo
ui.clear.onclick = clear
ui.save.onclick = () => void save()
ui.segment.onclick = () => void segmentEverything()
ui.cancel.onclick = () => search?.abort()
ui.saveLabels.onclick = () => void saveLabels()
ui.leastScore.oninput = ui.leastStability.oninput = () => void limit()
ui.sample.onclick = () => void openImage('sample.svg', 'sample.svg')
ui.model.onchange = () => void openModel()
ui.variant.onchange = () => void openModel()
ui.provider.onchange = () => void openModel()

/** @param {File | undefined} file */
async function openFile(file) {
  if (!file) return
  const url = URL.createObjectURL(file)
  await openImage(url, file.name)
  URL.revokeObjectURL(url)
}

ui.file.onchange = async () => {
  await openFile(ui.file.files?.[0])
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
  void openFile(event.dataTransfer?.files[0])
})

// The start.

async function offerWebGPU() {
  const found = await adapter()
  const option = ui.provider.querySelector('[value=webgpu]')
  if (!found && option instanceof HTMLOptionElement) {
    option.disabled = true
    ui.webgpu.textContent = `This browser has no WebGPU: models run on WASM, ${threads()}.`
  } else if (found?.software) {
    ui.webgpu.textContent = `WebGPU is emulated here (${found.name}), and slow: WASM is used.`
  } else if (found) {
    ui.provider.value = 'webgpu'
    ui.webgpu.textContent = `WebGPU: ${found.name}. WASM would use ${threads()}.`
  }
}

function threads() {
  const count = threadsHere()
  return count === 1 ? 'one thread' : `${count} threads`
}

async function start() {
  await offerWebGPU()
  const response = await fetch('/models.json')
  /** @type {string[]} */
  const models = response.ok ? await response.json() : []
  if (!models.length) {
    complain('No model is deployed yet. Run `uv run doit demo` or `uv run doit`, then reload.')
    return
  }
  ui.model.replaceChildren(...models.map((name) => new Option(name)))
  const asked = new URLSearchParams(location.search).get('model')
  if (asked && models.includes(asked)) ui.model.value = asked
  await openModel()
}

start().catch((error) => complain(words(error)))
