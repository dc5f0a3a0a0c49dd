// Mouse, pen and fingers on the image: clicks, boxes, panning and zooming.

/** @typedef {import('../image/view.js').At} At */
/**
 * Places are in the frame's pixels.
 *
 * @typedef {object} Handlers
 * @property {() => boolean} canPrompt
 * @property {(at: At, withShift: boolean) => void} onClick
 * @property {(at: At) => void} onSecondClick a right click, or a long touch
 * @property {(from: At, to: At | null) => void} onDrag a box so far; null when it is cancelled
 * @property {(from: At, to: At) => void} onBox
 * @property {(right: number, down: number) => void} onPan
 * @property {(factor: number, at: At) => boolean} onZoom whether that changed anything
 * @property {() => void} onSpace the key was pressed without panning
 */

/** How far the pointer must move, in pixels, for a click to become a drag. */
const DRAG = 6

/**
 * @param {HTMLElement} frame
 * @param {HTMLElement} image the element that gets the focus
 * @param {Handlers} handlers
 */
export function followPointers(frame, image, handlers) {
  /** @type {Map<number, At>} */
  const down = new Map()
  /** @type {'prompt' | 'pan' | 'pinch' | null} */
  let doing = null
  /** @type {At} */
  let from = { x: 0, y: 0 }
  let dragged = false
  /** @type {'held' | 'used' | null} */
  let space = null

  /** @param {MouseEvent} event @returns {At} */
  const place = (event) => {
    const { left, top } = frame.getBoundingClientRect()
    return { x: event.clientX - left, y: event.clientY - top }
  }
  const giveUp = () => {
    if (doing === 'prompt' && dragged) handlers.onDrag(from, null)
    doing = null
    dragged = false
  }
  /** @param {'held' | 'used' | null} state */
  const hold = (state) => {
    space = state
    frame.classList.toggle('panning', state !== null)
  }

  frame.addEventListener('pointerdown', (event) => {
    if (event.target !== image && event.target !== frame) return
    if (event.button > 1) return
    down.set(event.pointerId, place(event))
    frame.setPointerCapture(event.pointerId)
    if (down.size === 2) {
      giveUp()
      doing = 'pinch'
    } else if (event.button === 1 || space) {
      event.preventDefault() // the middle button would scroll by itself
      if (space) hold('used')
      doing = 'pan'
    } else if (down.size === 1 && handlers.canPrompt()) {
      doing = 'prompt'
      from = place(event)
    }
  })

  frame.addEventListener('pointermove', (event) => {
    const before = down.get(event.pointerId)
    if (!before) return
    const at = place(event)
    if (doing === 'pinch' && down.size === 2) pinch(event.pointerId, before, at)
    else if (doing === 'pan') handlers.onPan(at.x - before.x, at.y - before.y)
    else if (doing === 'prompt') {
      dragged ||= Math.hypot(at.x - from.x, at.y - from.y) > DRAG
      if (dragged) handlers.onDrag(from, at)
    }
    down.set(event.pointerId, at)
  })

  /** @param {number} moving @param {At} before @param {At} at */
  function pinch(moving, before, at) {
    for (const [id, other] of down) {
      if (id === moving) continue
      const [was, is] = [distance(before, other), distance(at, other)]
      const middle = { x: (at.x + other.x) / 2, y: (at.y + other.y) / 2 }
      handlers.onPan((at.x - before.x) / 2, (at.y - before.y) / 2)
      if (was && is) handlers.onZoom(is / was, middle)
    }
  }

  /** @param {PointerEvent} event */
  const lift = (event) => {
    if (!down.delete(event.pointerId)) return
    if (event.type === 'pointercancel') giveUp()
    else if (doing === 'prompt' && dragged) handlers.onBox(from, place(event))
    else if (doing === 'prompt') handlers.onClick(from, event.shiftKey)
    // After a pinch the remaining finger does nothing until it is lifted too.
    if (doing !== 'pinch' || !down.size) doing = null
    dragged = false
  }
  frame.addEventListener('pointerup', lift)
  frame.addEventListener('pointercancel', lift)

  frame.addEventListener('contextmenu', (event) => {
    if (event.target !== image) return
    event.preventDefault()
    giveUp()
    if (handlers.canPrompt()) handlers.onSecondClick(place(event))
  })

  frame.addEventListener(
    'wheel',
    (event) => {
      const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1
      // A pinch on a touchpad comes as a wheel with Ctrl, in small steps.
      const factor = Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.0015))
      if (handlers.onZoom(factor, place(event))) event.preventDefault()
    },
    { passive: false },
  )

  image.addEventListener('keydown', (event) => {
    if (event.key !== ' ') return
    event.preventDefault()
    if (!event.repeat) hold('held')
  })
  image.addEventListener('keyup', (event) => {
    if (event.key !== ' ') return
    if (space === 'held') handlers.onSpace()
    hold(null)
  })
  image.addEventListener('blur', () => hold(null))
}

/** @param {At} one @param {At} other */
const distance = (one, other) => Math.hypot(one.x - other.x, one.y - other.y)
