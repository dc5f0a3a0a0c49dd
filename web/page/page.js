// The page of `doit serve`: pick a deployed model, open an image or a sequence, prompt, see the masks,
// save them. interface/sequence-view.js has what only sequences have.

import { advice } from './interface/advice.js'
import { Model } from './interface/worker-client.js'
import { colorOf, unusedColor } from './image/colors.js'
import { inputSize, refines } from './shared/contract.js'
import { boxOutline, crossHair, objectNumbers, promptMarks } from './image/drawing.js'
import { chooseTool, tool, ui } from './interface/elements.js'
import { best } from './shared/feeds.js'
import { showAnswer, showEverything, showNothing } from './interface/figures.js'
import { Following } from './interface/sequence-view.js'
import { scaledPixels } from './shared/image.js'
import { isUndo, requested, ZOOM } from './interface/keys.js'
import { labelsOf, layerOf, masked, regionsOf, shownStep } from './image/layers.js'
import { ObjectList } from './interface/object-list.js'
import { maskOf, shownOf } from './image/masks.js'
import {
  complain,
  duration,
  hideProgress,
  percent,
  say,
  settle,
  showProgress,
  words,
} from './interface/messages.js'
import { threadsHere } from './shared/model.js'
import {
  describe,
  explain,
  offerVariants,
  offerWebGPU,
  showNoModel,
  showProof,
  withVariant,
} from './interface/model-panel.js'
import * as set from './image/objects.js'
import { currentOf, lastStep, titleOf } from './image/objects.js'
import { followPointers } from './interface/pointers.js'
import { placement } from './shared/preprocessing.js'
import { saveCoco, saveCocoFrames, saveLabels, saveLabelStack, saveMask } from './image/saving.js'
import { Scene } from './image/scene.js'
import { openFiles } from './frames/sequence.js'
import { storedLook, storeLook } from './image/look.js'

/** @typedef {import('./shared/contract.js').Manifest} Manifest */
/** @typedef {import('./shared/model.js').Provider} Provider */
/** @typedef {import('./image/masks.js').Region} Region */
/** @typedef {import('./image/objects.js').Entry} Entry */
/** @typedef {import('./image/objects.js').Step} Step */
/** @typedef {import('./shared/preprocessing.js').Placement} Placement */
/** @typedef {import('./shared/preprocessing.js').Prompt} Prompt */
/** @typedef {import('./image/scene.js').Layer} Layer */
/** @typedef {import('./frames/sequence.js').Sequence} Sequence */
/** @typedef {import('./image/view.js').At} At */
/** @typedef {import('./image/view.js').Size} Size */

/**
 * What "everything" found in the image.
 *
 * @typedef {object} Everything
 * @property {Uint8Array} labels for each pixel of what is drawn the number of its object, or 0
 * @property {Size} size of the labels
 * @property {At[]} middles of the objects, in image parts
 * @property {number} prompts how many were asked
 * @property {number} milliseconds
 */

/** Longer side of the labels of everything, in pixels. */
const VIEW = 1024

/** @type {Model | null} the one that is open, or being opened */
let model = null
/** @type {Sequence | null} */
let image = null
/** @type {Placement | null} where the image lies, once it is encoded */
let place = null
let look = storedLook()
let objects = set.started(look.color)
/** @type {At | null} the keyboard's cross, in image parts */
let cross = null
/** @type {At | null} where a box began, in image parts */
let corner = null
/** @type {At | null} where that box would end now */
let opposite = null
/** @type {Everything | null} shown in place of the objects */
let everything = null
/** @type {AbortController | null} stops what looks for everything */
let search = null
let webgpuHint = ''
let encoding = false
let decoding = false
let decoded = Promise.resolve()

const current = () => lastStep(currentOf(objects))
/** Whether something goes on that prompts wait for. */
const isBusy = () => search !== null || following.stop !== null

/** @returns {() => () => boolean} begins an attempt, and that tells whether it is still the latest */
function attempts() {
  let latest = 0
  return () => {
    const mine = ++latest
    return () => mine === latest
  }
}
const beginModel = attempts()
const beginImage = attempts()

// The model.

async function openModel() {
  const isLatest = beginModel()
  model?.close()
  model = null
  place = null
  everything = search = null
  following.abandon()
  settle('model', 'work')
  showNoModel()
  refresh()
  const name = ui.model.value
  const base = `/models/${name}`
  const provider = /** @type {Provider} */ (ui.provider.value)
  let proven = true
  try {
    const response = await fetch(`${base}/manifest.json`, { cache: 'no-cache' })
    if (!response.ok) throw new Error(`${base}/manifest.json: HTTP ${response.status}`)
    const whole = await response.json()
    if (!isLatest()) return
    const variant = offerVariants(whole, provider)
    const manifest = withVariant(whole, variant)
    inputSize(manifest) // refuses a manifest of an earlier version of the build
    ui.about.textContent = describe(manifest)
    proven = showProof(whole, variant, provider)
    const opening = (model = new Model(manifest, showProgress))
    await opening.call('open', { base, provider, threads: threadsHere(), manifest })
    opening.opened = true
  } catch (error) {
    if (!isLatest()) return
    model?.close()
    model = null
    hideProgress()
    if (provider === 'webgpu') {
      ui.webgpu.textContent = `WebGPU does not run ${name} here, WASM is used: ${words(error)}`
      ui.provider.value = 'wasm'
      await openModel()
      return
    }
    say(`${name} is not ready.`)
    complain('model', `${name} cannot be used.\n${words(error)}`)
    return
  }
  if (!isLatest()) return
  hideProgress()
  const ready = `${name} is ready${proven ? '' : ', but not proven in a browser'}.`
  say(`${ready}${image ? '' : ' Open an image.'}`)
  await encodeImage()
}

// The image.

/** @param {File[] | Promise<File[]>} files */
async function open(files) {
  const isLatest = beginImage()
  settle('image', 'work')
  /** @type {Sequence} */
  let opened
  try {
    opened = await openFiles(await files, (done, total) => {
      if (isLatest()) showProgress('Reading', done, total, 'frames')
    })
  } catch (error) {
    if (!isLatest()) return
    if (!isBusy()) hideProgress()
    complain('image', words(error))
    return
  }
  if (!isLatest()) {
    opened.close()
    return
  }
  hideProgress()
  image?.close()
  image = opened
  ui.empty.hidden = true
  objects = set.started(look.color)
  place = null
  cross = corner = opposite = null
  search?.abort()
  everything = search = null
  following.opened(image)
  scene.open(image.element, image)
  ui.stage.scrollIntoView() // on a phone the buttons are below it
  say(`${image.file} is open.`)
  await encodeImage()
}

/** Encode what is open, then decode its prompts. */
async function encodeImage() {
  refresh()
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
  const { manifest } = using
  const { width, height } = shown
  explain(manifest, following.answers(using))
  showProgress(following.isOpen ? 'Getting ready' : 'Encoding the image')
  try {
    let found, ready
    if (following.isOpen) {
      found = await following.ready(using, shown)
      ready = `${shown.file} has ${shown.count} frames. Click an object on one of them.`
    } else {
      found = placement(width, height, inputSize(manifest), manifest.preprocessing.resize)
      const rgba = scaledPixels(await shown.read(0), found)
      const { milliseconds } = await using.call('encode', { rgba, place: found })
      const time = duration(milliseconds)
      ui.encoderTime.textContent = time
      ready = `Encoded in ${time}. Click what to segment. ${advice(manifest, milliseconds)}`
    }
    if (model !== using || image !== shown) return true
    place = found
    // Prompts stay when the model changes, its answers do not.
    for (const step of set.allSteps(objects)) Object.assign(step, { answer: null, choice: null })
    say(ready)
  } catch (error) {
    if (model !== using || image !== shown) return true
    const what = following.isOpen ? 'The model is not ready for frames.' : 'The encoder failed.'
    complain('work', `${what}\n${words(error)}`)
  }
  hideProgress()
  enable()
  return false
}

// The prompts of the current object.

/** @param {Partial<Prompt>} change */
function prompt(change) {
  if (!place || isBusy()) return
  settle('image', 'work')
  everything = null
  const before = current()
  const isRefined = following.answers(model) || (ui.refine.checked && !ui.refine.disabled)
  const now = { points: [], box: null, ...before?.prompt, ...change }
  const since = performance.now()
  const { frame } = objects
  const { id } = currentOf(objects)
  const refined = isRefined ? before : null
  const step = { prompt: now, refines: refined, frame, id, answer: null, choice: null, since }
  objects = set.stepped(objects, step)
  void decodePrompts()
  scene.draw() // the point, before its mask
}

/** @param {At} at in image parts @param {boolean} foreground */
function addPoint(at, foreground) {
  if (!place) return
  const points = current()?.prompt.points ?? []
  prompt({ points: [...points, { ...inImage(at), foreground }] })
}

/** @param {At} from @param {At} to in image parts */
function setBox(from, to) {
  if (!place) return
  const [one, other] = [inImage(from), inImage(to)]
  prompt({ box: [one.x, one.y, other.x, other.y] })
}

/** @param {At} at in image parts */
function inImage({ x, y }) {
  const { width, height } = /** @type {Placement} */ (place)
  return { x: x * width, y: y * height }
}

function undo() {
  if (ui.prompting.disabled || ui.undo.disabled) return
  settle('image', 'work')
  corner = opposite = null
  const deletions = objects.deletions.length
  if (everything) everything = null
  else objects = set.undone(objects)
  say(current() ? 'Undone.' : 'No prompt.')
  void decodePrompts()
  if (objects.deletions.length < deletions) say(`${titleOf(currentOf(objects))} is back.`)
}

/** Give up what is begun or shown in place of the objects; else clear the current object. */
function clear() {
  if (!place) return
  if (isBusy()) {
    cancel()
  } else if (corner || everything) {
    change(objects)
  } else {
    change(set.cleared(objects, performance.now()))
    say('Cleared.')
  }
}

function cancel() {
  search?.abort()
  following.stop?.abort()
}

/** Run the decoder until each object has its mask, then draw. */
function decodePrompts() {
  enable()
  if (!decoding) decoded = decodeAll()
  return decoded
}

async function decodeAll() {
  decoding = true
  const using = model
  /** @type {Step | null} */
  let last = null
  try {
    for (let step = set.unanswered(objects); step && using && place; ) {
      await answer(step, using, place)
      last = step
      step = set.unanswered(objects)
    }
  } catch (error) {
    if (model === using) complain('work', `The decoder failed.\n${words(error)}`)
  }
  decoding = false
  if (following.isOpen && !isBusy()) hideProgress()
  scene.repaint()
  if (last?.answer && last === current()) {
    const detail = { decoder: last.answer.milliseconds }
    performance.measure('prompt to mask', { start: last.since, detail })
  }
  enable()
  announce()
}

/**
 * Run the decoder for a step, and before that for the one whose mask it starts from.
 *
 * @param {Step} step
 * @param {Model} using
 * @param {Placement} at
 */
async function answer(step, using, at) {
  if (step.answer) return
  if (following.answers(using)) {
    step.answer = await following.answer(step, using, at)
    return
  }
  if (following.isOpen) await following.encode(step.frame, using, at)
  const { manifest } = using
  const before = refines(manifest) ? step.refines : null
  if (before) await answer(before, using, at)
  const previous = maskOf(before)?.logits ?? null
  const found = await using.call('decode', { prompt: step.prompt, place: at, previous })
  const threshold = manifest.prompts.mask_threshold
  step.answer = { ...found, best: best(manifest, found.scores), threshold, place: at }
}

// The objects.

/** @param {import('./image/objects.js').Objects} changed */
function change(changed) {
  objects = changed
  corner = opposite = null
  everything = null
  settle('image', 'work')
  refresh()
}

function addObject() {
  if (!place || isBusy()) return
  change(set.added(objects, unusedColor(objects.entries.map(({ color }) => color))))
  say(`${titleOf(currentOf(objects))}: click what to segment.`)
}

const list = new ObjectList(ui.objects, {
  onChoose(number) {
    if (search) showObjects() // the browser has checked it
    else if (number !== objects.current || everything) change(set.chosen(objects, number))
  },
  onRename(number, name) {
    objects = set.changed(objects, number, { name })
    showObjects()
  },
  onRecolor(number, color) {
    look = { ...look, color }
    storeLook(look)
    objects = set.changed(objects, number, { color })
    refresh()
  },
  onRemove(number) {
    if (isBusy()) return
    const entry = objects.entries.find((one) => one.number === number)
    if (!entry) return
    change(set.removed(objects, number, performance.now()))
    list.focus(objects.current)
    say(`${titleOf(entry)} is deleted.${entry.steps.length ? ' Undo brings it back.' : ''}`)
  },
})

// Everything.

/** Click on each point of a grid, and show the objects that are found. */
async function segmentEverything() {
  const [using, at] = [model, place]
  if (!using || !at || isBusy()) return
  const stop = (search = new AbortController())
  everything = null
  corner = opposite = null
  settle('image', 'work')
  refresh()
  say('Segmenting everything.')
  /** @type {string | null} */
  let problem = null
  try {
    const args = { side: Number(ui.grid.value), place: at }
    const found = await using.call('everything', args, stop.signal)
    const size = drawnSize(at)
    const chosen = found && (await objectsFound(size))
    if (chosen && search === stop) everything = { ...found, ...chosen, size }
  } catch (error) {
    problem = words(error)
  }
  if (search !== stop) return // another model or image was opened meanwhile
  search = null
  hideProgress()
  refresh()
  if (problem) complain('work', `The decoder failed.\n${problem}`)
  else if (!everything) say('Cancelled.')
}

/** @param {Size} image @returns {Size} */
function drawnSize({ width, height }) {
  const scale = VIEW / Math.max(width, height)
  return {
    width: Math.max(1, Math.round(width * scale)),
    height: Math.max(1, Math.round(height * scale)),
  }
}

/**
 * The objects within the limits that are set now.
 *
 * @param {Size} size of their labels
 * @returns {Promise<Pick<Everything, 'labels' | 'middles'>>}
 */
async function objectsFound({ width, height }) {
  const limits = { score: Number(ui.leastScore.value), stability: Number(ui.leastStability.value) }
  return model?.call('objects', { limits, place, width, height })
}

/** Choose anew among the masks that were found. */
async function limit() {
  const before = everything
  if (!before) return
  try {
    Object.assign(before, await objectsFound(before.size))
    if (everything === before) refresh()
  } catch (error) {
    if (everything === before) complain('work', words(error))
  }
}

// What is seen.

const following = new Following({
  state: () => ({ image, model, place, objects }),
  turn(frame) {
    objects = set.atFrame(objects, frame)
    corner = opposite = null
    refresh()
  },
  refresh,
  decodePrompts,
})
const scene = new Scene(ui.frame, ui.picture, ui.overlay, { layer, marks }, () => look)

function refresh() {
  enable()
  scene.repaint()
  announce()
}

function enable() {
  const masks = shownMasks().length > 0 || following.tracks.frames.size > 0
  ui.prompting.disabled = !place || isBusy()
  ui.tracking.disabled = ui.prompting.disabled
  ui.cancel.hidden = !isBusy()
  ui.addHere.disabled = ui.prompting.disabled
  ui.zooming.disabled = !image
  ui.refine.disabled = !model || !refines(model.manifest) || following.answers(model)
  ui.undo.disabled = !set.isUndoable(objects) && !everything
  ui.clear.disabled = !current() && !everything
  ui.everything.disabled = !place || isBusy() || following.isOpen
  ui.save.disabled = !shownMask(currentOf(objects)) || everything !== null
  const nothing = everything ? !everything.middles.length : !masks
  ui.saveLabels.disabled = ui.saveCoco.disabled = !place || isBusy() || nothing
  ui.saveLabels.textContent = `Save labels (${following.isOpen ? 'TIFF' : 'PNG'})`
  following.timeline()
  showObjects()
}

function showObjects() {
  list.show(objects, (entry) => {
    const mask = shownMask(entry)
    return mask ? percent(mask.share) : '–'
  })
}

/** @param {Size} whole @param {Region} region @returns {Layer | null} */
function layer(whole, region) {
  if (search || !place) return null
  if (everything) {
    const { labels, size, middles } = everything
    const colors = new Map(middles.map((_, index) => [index + 1, colorOf(index + 1)]))
    return { labels, ...size, part: { left: 0, top: 0, width: 1, height: 1 }, colors }
  }
  const colors = new Map(objects.entries.map(({ number, color }) => [number, color]))
  return layerOf(shownMasks(), whole, region, colors)
}

/** The mask of an object, where there is one. @param {Entry} entry */
const shownMask = (entry) => (place ? maskOf(shownStep(entry, following.shown)) : null)

const shownMasks = () => (place ? masked(objects, following.shown) : [])

/** @param {CanvasRenderingContext2D} context @param {number} scale */
function marks(context, scale) {
  if (!image) return
  const [width, height] = [image.width * scale, image.height * scale]
  const scaled = (/** @type {At} */ { x, y }) => ({ x: x * width, y: y * height })
  if (everything) {
    objectNumbers(
      context,
      everything.middles.map((at, index) => ({ number: index + 1, ...scaled(at) })),
    )
  } else {
    if (!search) objectNumbers(context, numberPlaces().map((at) => ({ ...at, ...scaled(at) })))
    const step = current()
    if (step) promptMarks(context, step.prompt, scale, scale)
    if (corner && opposite) {
      boxOutline(context, [corner.x, corner.y, opposite.x, opposite.y], width, height)
    }
  }
  if (cross && document.activeElement === ui.overlay) crossHair(context, scaled(cross))
}

/** Where the numbers of objects are written: on all but the current, which has its marks. */
function numberPlaces() {
  return objects.entries.flatMap((entry) => {
    const middle = entry.number === objects.current ? null : shownMask(entry)?.middle
    return middle ? [{ number: entry.number, ...middle }] : []
  })
}

/** Say in words and figures what is drawn. */
function announce() {
  const step = shownStep(currentOf(objects), following.shown)
  const mask = shownMask(currentOf(objects))
  if (everything) showEverything(everything)
  else if (search || !step?.answer || !mask) showNothing()
  else showAnswer(step.answer, shownOf(step, step.answer), mask.share, choose)
}

/** @param {number} index */
function choose(index) {
  const step = current()
  if (ui.save.disabled || !step?.answer || index >= step.answer.scores.length) return
  const focused = ui.candidates.contains(document.activeElement)
  step.choice = index
  refresh()
  if (focused) ui.candidates.querySelectorAll('input')[index].focus()
}

// Saving.

/** @param {() => Promise<string>} work its answer is the name of the file */
async function save(work) {
  settle('work')
  try {
    say(`Saved ${await work()}.`)
  } catch (error) {
    complain('work', words(error))
  }
}

/** The current object at the image's own size: white on black. */
function saveShownMask() {
  const object = shownMasks().find(({ number }) => number === objects.current)
  if (!image || !place || !object) throw new Error('There is no mask yet.')
  const name = following.isOpen ? `${image.name}-${objects.frame + 1}` : image.name
  return saveMask(object, place, name)
}

/** All objects at the image's own size: each pixel as bright as its object's number. */
async function saveAllLabels() {
  if (!image || !place) throw new Error('No image is open.')
  if (following.isOpen) return saveLabelStack(following.frames(), image)
  const labels = everything ? (await objectsFound(place)).labels : labelsOf(shownMasks(), place)
  return saveLabels(labels, place, image.name)
}

/** All objects as COCO has them; those that overlap are whole. */
async function saveAllCoco() {
  if (!image || !place) throw new Error('No image is open.')
  if (following.isOpen) return saveCocoFrames(following.frames(), image)
  const found = everything ? await labelRegions(everything) : regionsOf(shownMasks(), place)
  return saveCoco(found, place, image)
}

/** @param {Everything} shown */
async function labelRegions({ middles }) {
  const { labels } = await objectsFound(/** @type {Placement} */ (place))
  return middles.map((_, index) => {
    return { number: index + 1, category: 'object', values: labels, inside: index + 1 }
  })
}

// Mouse, touch and keys.

/** @param {At} at in the frame @returns {At} in image parts, inside */
function position(at) {
  const { x, y } = scene.partsOf(at)
  const inside = (/** @type {number} */ part) => Math.min(Math.max(part, 0), 1)
  return { x: inside(x), y: inside(y) }
}

/** @param {At} at in the frame */
function isOutside(at) {
  const { x, y } = scene.partsOf(at)
  return x < 0 || y < 0 || x > 1 || y > 1
}

followPointers(ui.frame, ui.overlay, {
  canPrompt: () => place !== null && !isBusy(),
  onClick(at) {
    cross = null
    if (isOutside(at)) say('That is outside the image: click inside it.')
    else if (tool() === 'box') say('Drag from one corner of the box to the other.')
    else addPoint(position(at), tool() === 'foreground')
  },
  onSecondClick: (at) => addPoint(position(at), false),
  onDrag(from, to) {
    cross = null
    corner = to && position(from)
    opposite = to && position(to)
    scene.draw()
  },
  onBox(from, to) {
    corner = opposite = null
    setBox(position(from), position(to))
  },
  onPan: (right, down) => scene.pan(right, down),
  onZoom: (factor, at) => scene.zoom(factor, at),
  onSpace: placeAtCross,
})

ui.overlay.addEventListener('keydown', (event) => {
  const request = requested(event)
  if (!request || !image) return
  event.preventDefault()
  if ('move' in request) moveCross(...request.move)
  else if ('zoom' in request) scene.zoom(request.zoom, cross ? scene.placeOf(cross) : undefined)
  else if ('frames' in request) following.scrub(following.wanted + request.frames)
  else if ('candidate' in request) choose(request.candidate)
  else if ('tool' in request) {
    chooseTool(request.tool)
    say(`Tool: ${request.tool}.`)
  } else {
    const acts = { place: placeAtCross, undo, clear, add: addObject, fit: () => scene.fit() }
    acts[request.act]()
  }
})

// After an object is deleted the list has the focus, and undo must be in reach all the same.
document.addEventListener('keydown', (event) => {
  const { target } = event
  const isText = target instanceof HTMLInputElement && /^(text|number)$/.test(target.type)
  if (event.defaultPrevented || isText || !isUndo(event)) return
  event.preventDefault()
  undo()
})

/** @param {number} x @param {number} y in image parts */
function moveCross(x, y) {
  const from = cross ?? { x: 0.5, y: 0.5 }
  const inside = (/** @type {number} */ part) => Math.min(Math.max(part, 0), 1)
  cross = { x: inside(from.x + x), y: inside(from.y + y) }
  if (corner) opposite = cross
  scene.reveal(cross)
  scene.draw()
  say(`Cross at ${Math.round(cross.x * 100)} % from the left, ${Math.round(cross.y * 100)} % down.`)
}

function placeAtCross() {
  if (!place || isBusy()) return
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

scene.onView = () => {
  ui.zoomFit.textContent = `${Math.round(100 * scene.magnification)} %`
  ui.zoomFit.ariaLabel = `${ui.zoomFit.textContent}, show all of the image`
}
ui.zoomIn.onclick = () => void scene.zoom(ZOOM)
ui.zoomOut.onclick = () => void scene.zoom(1 / ZOOM)
ui.zoomFit.onclick = () => scene.fit()
ui.overlay.addEventListener('blur', () => scene.draw())
ui.overlay.addEventListener('focus', () => scene.draw())
ui.undo.onclick = undo
ui.clear.onclick = clear
ui.add.onclick = ui.addHere.onclick = addObject
ui.save.onclick = () => void save(saveShownMask)
ui.saveLabels.onclick = () => void save(saveAllLabels)
ui.saveCoco.onclick = () => void save(saveAllCoco)
ui.segment.onclick = () => void segmentEverything()
ui.cancel.onclick = cancel
ui.leastScore.oninput = ui.leastStability.oninput = () => void limit()
ui.sample.onclick = () => void open(sample())
ui.model.onchange = () => {
  settle('address')
  pickModel()
}
ui.variant.onchange = pickModel
ui.provider.onchange = pickModel

function pickModel() {
  ui.webgpu.textContent = webgpuHint // not what the last model made of it
  void openModel()
}

ui.opacity.value = String(Math.round(look.opacity * 100))
ui.outline.checked = look.outline
ui.opacity.oninput = ui.outline.onchange = () => {
  look = { ...look, opacity: Number(ui.opacity.value) / 100, outline: ui.outline.checked }
  storeLook(look)
  scene.repaint()
}

async function sample() {
  const picture = await (await fetch('sample.svg')).blob()
  return [new File([picture], 'sample.svg', { type: picture.type })]
}

ui.file.onchange = () => {
  if (ui.file.files?.length) void open([...ui.file.files])
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
  if (event.dataTransfer?.files.length) void open([...event.dataTransfer.files])
})

// The start.

async function start() {
  enable()
  webgpuHint = await offerWebGPU()
  ui.webgpu.textContent = webgpuHint
  const response = await fetch('/models.json')
  if (!response.ok) throw new Error(`/models.json: HTTP ${response.status}`)
  /** @type {string[]} */
  const models = await response.json()
  if (!models.length) {
    const advice = 'Run `uv run doit demo` or `uv run doit`, then reload.'
    complain('model', `No model is deployed yet. ${advice}`)
    return
  }
  ui.model.replaceChildren(...models.map((name) => new Option(name)))
  const asked = new URLSearchParams(location.search).get('model')
  if (asked && models.includes(asked)) ui.model.value = asked
  else if (asked !== null) {
    complain(
      'address',
      `No model “${asked}” is deployed, ${models[0]} is shown. Deployed: ${models.join(', ')}.`,
    )
  }
  await openModel()
}

start().catch((error) => complain('model', words(error)))
