// What mouse, touch and keys do on the image.

import { clamp } from '../image/view.js'
import { chooseTool, tool, ui } from './elements.js'
import { needsKey, requested, ZOOM } from './keys.js'
import { say } from './messages.js'
import { followPointers } from './pointers.js'

/** @typedef {import('../image/view.js').At} At */

/** @param {import('../page.js').Page} page */
export function listen(page) {
  const { cursor, display, look, prompting, sequence } = page
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
    onClick(at, withShift) {
      cursor.cross = null
      if (isOutside(at)) say('That is outside the image: click inside it.')
      else if (tool() === 'box') say('Drag from one corner of the box to the other.')
      else prompting.point(inside(at), withShift)
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
    undo: () => prompting.turn('undo'),
    redo: () => prompting.turn('redo'),
    clear: () => prompting.clear(),
    add: () => prompting.addObject(),
    hide: () => look.toggle(),
    fit: () => scene.fit(),
  }
  // On the document, because after a click on a button the focus is not on the image.
  document.addEventListener('keydown', (event) => {
    const target = event.target instanceof HTMLElement ? event.target : document.body
    const isFree = target === ui.overlay || !needsKey(target, event.key)
    const request = isFree && !ui.question.open ? requested(event) : null
    if (!request || !page.image.current || event.defaultPrevented) return
    event.preventDefault()
    if ('move' in request) {
      ui.overlay.focus() // so that the cross is visible
      cursor.move(...request.move)
    } else if ('place' in request) cursor.place(request.place === 'point')
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
  ui.overlay.addEventListener('blur', () => scene.draw())
  ui.overlay.addEventListener('focus', () => scene.draw())
  ui.zoomIn.onclick = () => void scene.zoom(ZOOM)
  ui.zoomOut.onclick = () => void scene.zoom(1 / ZOOM)
  ui.zoomFit.onclick = () => scene.fit()
}
