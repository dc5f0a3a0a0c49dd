// Mouse, touch and keys on the image: what each makes the page do.

import { clamp } from '../image/view.js'
import { chooseTool, tool, ui } from './elements.js'
import { isUndo, requested, ZOOM } from './keys.js'
import { say } from './messages.js'
import { followPointers } from './pointers.js'

/** @typedef {import('../image/view.js').At} At */

/** @param {import('../page.js').Page} page */
export function listen(page) {
  const { cursor, display, prompting, sequence } = page
  const { scene } = display

  /** @param {At} at in the frame @returns {At} in image parts, inside */
  const inside = (at) => {
    const { x, y } = scene.partsOf(at)
    return { x: clamp(x, 0, 1), y: clamp(y, 0, 1) }
  }
  /** @param {At} at in the frame */
  const isOutside = (at) => {
    const { x, y } = scene.partsOf(at)
    return x < 0 || y < 0 || x > 1 || y > 1
  }

  followPointers(ui.frame, ui.overlay, {
    canPrompt: () => page.canPrompt,
    onClick(at) {
      cursor.cross = null
      if (isOutside(at)) say('That is outside the image: click inside it.')
      else if (tool() === 'box') say('Drag from one corner of the box to the other.')
      else prompting.addPoint(inside(at), tool() === 'foreground')
    },
    onSecondClick: (at) => prompting.addPoint(inside(at), false),
    onDrag: (from, to) => cursor.drag(inside(from), to && inside(to)),
    onBox(from, to) {
      cursor.dropBox()
      prompting.setBox(inside(from), inside(to))
    },
    onPan: (right, down) => scene.pan(right, down),
    onZoom: (factor, at) => scene.zoom(factor, at),
    onSpace: () => cursor.place(),
  })

  const acts = {
    place: () => cursor.place(),
    undo: () => prompting.undo(),
    clear: () => prompting.clear(),
    add: () => prompting.addObject(),
    fit: () => scene.fit(),
  }
  ui.overlay.addEventListener('keydown', (event) => {
    const request = requested(event)
    if (!request || !page.image.current) return
    event.preventDefault()
    if ('move' in request) cursor.move(...request.move)
    else if ('zoom' in request) {
      scene.zoom(request.zoom, cursor.cross ? scene.placeOf(cursor.cross) : undefined)
    } else if ('frames' in request) sequence.scrub(sequence.wanted + request.frames)
    else if ('candidate' in request) prompting.chooseMask(request.candidate)
    else if ('tool' in request) {
      chooseTool(request.tool)
      say(`Tool: ${request.tool}.`)
    } else {
      acts[request.act]()
    }
  })
  // After an object is deleted the list has the focus, and undo must be in reach all the same.
  document.addEventListener('keydown', (event) => {
    const { target } = event
    const isText = target instanceof HTMLInputElement && /^(text|number)$/.test(target.type)
    if (event.defaultPrevented || isText || !isUndo(event)) return
    event.preventDefault()
    prompting.undo()
  })
  ui.overlay.addEventListener('blur', () => scene.draw())
  ui.overlay.addEventListener('focus', () => scene.draw())
  ui.zoomIn.onclick = () => void scene.zoom(ZOOM)
  ui.zoomOut.onclick = () => void scene.zoom(1 / ZOOM)
  ui.zoomFit.onclick = () => scene.fit()
}
