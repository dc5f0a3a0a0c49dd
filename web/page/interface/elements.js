// The page's elements, by name.

/** @template {HTMLElement} T @param {string} id @param {new () => T} kind @returns {T} */
function element(id, kind) {
  const node = document.getElementById(id)
  if (!(node instanceof kind)) throw new Error(`the page lacks #${id}`)
  return node
}

export const ui = {
  stage: element('stage', HTMLElement),
  frame: element('frame', HTMLElement),
  picture: element('picture', HTMLElement),
  overlay: element('overlay', HTMLCanvasElement),
  empty: element('empty', HTMLElement),
  zoomed: element('zoomed', HTMLElement),
  problem: element('problem', HTMLElement),
  problemText: element('problem-text', HTMLElement),
  retry: element('retry', HTMLButtonElement),
  dismiss: element('dismiss', HTMLButtonElement),
  timeline: element('timeline', HTMLElement),
  earlier: element('earlier', HTMLButtonElement),
  later: element('later', HTMLButtonElement),
  slider: element('slider', HTMLInputElement),
  known: element('known', HTMLCanvasElement),
  frameNumber: element('frame-number', HTMLElement),
  tracking: element('tracking', HTMLFieldSetElement),
  trackBack: element('track-back', HTMLButtonElement),
  trackBoth: element('track-both', HTMLButtonElement),
  trackOn: element('track-on', HTMLButtonElement),
  firstFrame: element('first-frame', HTMLInputElement),
  lastFrame: element('last-frame', HTMLInputElement),
  beginsHere: element('begins-here', HTMLButtonElement),
  notHere: element('not-here', HTMLButtonElement),
  endsHere: element('ends-here', HTMLButtonElement),
  noTracking: element('no-tracking', HTMLElement),
  planes: element('planes', HTMLFieldSetElement),
  slices: element('slices', HTMLElement),
  slice: element('slice', HTMLInputElement),
  sliceNumber: element('slice-number', HTMLElement),
  channels: element('channels', HTMLElement),
  channel: element('channel', HTMLSelectElement),
  mix: element('mix', HTMLElement),
  redChannel: element('red-channel', HTMLSelectElement),
  greenChannel: element('green-channel', HTMLSelectElement),
  blueChannel: element('blue-channel', HTMLSelectElement),
  prompting: element('prompting', HTMLFieldSetElement),
  undo: element('undo', HTMLButtonElement),
  redo: element('redo', HTMLButtonElement),
  clear: element('clear', HTMLButtonElement),
  add: element('add', HTMLButtonElement),
  zooming: element('zooming', HTMLFieldSetElement),
  zoomOut: element('zoom-out', HTMLButtonElement),
  zoomIn: element('zoom-in', HTMLButtonElement),
  zoomFit: element('zoom-fit', HTMLButtonElement),
  status: element('status', HTMLElement),
  waiting: element('waiting', HTMLElement),
  phase: element('phase', HTMLElement),
  progress: element('progress', HTMLProgressElement),
  cancel: element('cancel', HTMLButtonElement),
  file: element('file', HTMLInputElement),
  sample: element('sample', HTMLButtonElement),
  model: element('model', HTMLSelectElement),
  variant: element('variant', HTMLSelectElement),
  provider: element('provider', HTMLSelectElement),
  about: element('about', HTMLElement),
  proof: element('proof', HTMLElement),
  webgpu: element('webgpu', HTMLElement),
  addHere: element('add-here', HTMLButtonElement),
  objects: element('objects', HTMLElement),
  candidates: element('candidates', HTMLElement),
  candidatesHelp: element('candidates-help', HTMLElement),
  refine: element('refine', HTMLInputElement),
  refineHelp: element('refine-help', HTMLElement),
  contrast: element('contrast', HTMLFieldSetElement),
  black: element('black', HTMLInputElement),
  white: element('white', HTMLInputElement),
  range: element('range', HTMLElement),
  automatic: element('automatic', HTMLButtonElement),
  opacity: element('opacity', HTMLInputElement),
  outline: element('outline', HTMLInputElement),
  showMasks: element('show-masks', HTMLInputElement),
  showMarks: element('show-marks', HTMLInputElement),
  save: element('save', HTMLButtonElement),
  saveLabels: element('save-labels', HTMLButtonElement),
  saveCoco: element('save-coco', HTMLButtonElement),
  runs: element('runs', HTMLInputElement),
  openMasks: element('open-masks', HTMLInputElement),
  question: element('question', HTMLDialogElement),
  questionText: element('question-text', HTMLElement),
  keep: element('keep', HTMLButtonElement),
  discard: element('discard', HTMLButtonElement),
  everything: element('everything', HTMLFieldSetElement),
  grid: element('grid', HTMLSelectElement),
  leastScore: element('least-score', HTMLInputElement),
  leastStability: element('least-stability', HTMLInputElement),
  segment: element('segment', HTMLButtonElement),
  encoderTime: element('encoder-time', HTMLElement),
  decoderTime: element('decoder-time', HTMLElement),
  score: element('score', HTMLElement),
  area: element('area', HTMLElement),
}

/** The chosen kind of prompt: foreground, background or box. */
export function tool() {
  const checked = /** @type {HTMLInputElement} */ (document.querySelector('[name=tool]:checked'))
  return checked.value
}

/** @param {string} value */
export function chooseTool(value) {
  const radio = document.querySelector(`[name=tool][value=${value}]`)
  if (radio instanceof HTMLInputElement) radio.checked = true
}
