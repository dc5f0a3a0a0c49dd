// The image in its frame with masks and marks over it, under zoom and pan.

import { tinted } from './drawing.js'
import {
  fitted,
  isFitted,
  moved,
  reframed,
  showing,
  toFrame,
  toImage,
  visible,
  zoomed,
} from './view.js'

/** @typedef {import('./masks.js').Region} Region */
/** @typedef {import('./view.js').At} At */
/** @typedef {import('./view.js').Rectangle} Rectangle */
/** @typedef {import('./view.js').Size} Size */
/** @typedef {import('./view.js').View} View */
/**
 * Labels over a part of the image.
 *
 * @typedef {object} Layer
 * @property {ArrayLike<number>} labels
 * @property {number} width
 * @property {number} height
 * @property {Rectangle} part in parts of the image
 * @property {Map<number, string>} colors
 */
/**
 * The content to draw.
 *
 * @typedef {object} Content
 * @property {(whole: Size, region: Region) => Layer | null} layer makes the layer of the visible
 *   region, given the size that the whole image would have
 * @property {(context: CanvasRenderingContext2D, scale: number) => void} marks draws marks, with the
 *   image's upper left corner as origin and `scale` pixels for one of the image
 */

/** The largest number of mask pixels to compute: few would notice more, but everyone would wait. */
const PIXELS = 2 ** 20
/** How long the view must be still before its masks are computed, in milliseconds. */
const REST = 120

export class Scene {
  /**
   * @param {HTMLElement} frame
   * @param {HTMLElement} picture
   * @param {HTMLCanvasElement} overlay
   * @param {Content} content
   * @param {() => import('./look.js').Look} look
   */
  constructor(frame, picture, overlay, content, look) {
    this.frame = frame
    this.picture = picture
    this.overlay = overlay
    this.content = content
    this.look = look
    this.context = /** @type {CanvasRenderingContext2D} */ (overlay.getContext('2d'))
    /** @type {Size | null} */
    this.image = null
    /** @type {Size} */
    this.size = { width: 1, height: 1 }
    /** @type {View} */
    this.view = { scale: 1, x: 0, y: 0 }
    // One canvas for all masks: making one takes longer than filling it.
    this.canvas = new OffscreenCanvas(1, 1)
    this.masks = /** @type {OffscreenCanvasRenderingContext2D} */ (
      this.canvas.getContext('2d', { willReadFrequently: true })
    )
    /** The used part of that canvas, and its place. @type {{ size: Size, part: Rectangle } | null} */
    this.layer = null
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.resting = undefined
    /** Called when the view has changed. */
    this.onView = () => {}
    new ResizeObserver(() => this.measure()).observe(frame)
  }

  /** @param {HTMLElement} element @param {Size} image */
  open(element, { width, height }) {
    this.picture.replaceChildren(element)
    this.picture.hidden = this.overlay.hidden = false
    this.image = { width, height }
    this.size = sizeOf(this.frame)
    this.layer = null
    this.place(fitted(this.image, this.size))
  }

  measure() {
    const size = sizeOf(this.frame)
    if (!this.image || !size.width || !size.height) return
    const before = this.size
    this.size = size
    this.place(reframed(this.view, this.image, before, size))
  }

  fit() {
    if (this.image) this.see(fitted(this.image, this.size))
  }

  /**
   * @param {number} factor
   * @param {At} [at] in the frame; by default its middle
   * @returns {boolean} whether that changed anything
   */
  zoom(factor, at = { x: this.size.width / 2, y: this.size.height / 2 }) {
    if (!this.image) return false
    const before = this.view.scale
    this.see(zoomed(this.view, factor, at, this.image, this.size))
    return this.view.scale !== before
  }

  /** @param {number} right @param {number} down in the frame's pixels */
  pan(right, down) {
    if (this.image) this.see(moved(this.view, right, down, this.image, this.size))
  }

  /** Make a point visible. @param {At} at in parts of the image */
  reveal(at) {
    if (this.image) this.see(showing(this.view, at, this.image, this.size))
  }

  /** @param {At} at in the frame @returns {At} in parts of the image */
  partsOf(at) {
    return this.image ? toImage(this.view, at, this.image) : { x: 0, y: 0 }
  }

  /** @param {At} at in parts of the image @returns {At} in the frame */
  placeOf(at) {
    return this.image ? toFrame(this.view, at, this.image) : { x: 0, y: 0 }
  }

  /** The visible part of the image, in its pixels. @returns {Rectangle} */
  get seen() {
    const { scale, x, y } = this.view
    const { left, top, width, height } = visible(this.view, this.image ?? this.size, this.size)
    return {
      left: (left - x) / scale,
      top: (top - y) / scale,
      width: width / scale,
      height: height / scale,
    }
  }

  /** How many times larger the image is than when it fits. */
  get magnification() {
    if (!this.image || isFitted(this.view, this.image, this.size)) return 1
    return this.view.scale / fitted(this.image, this.size).scale
  }

  /** @param {View} view */
  see(view) {
    const { scale, x, y } = this.view
    if (view.scale !== scale || view.x !== x || view.y !== y) this.place(view)
  }

  /** @param {View} view */
  place(view) {
    this.view = view
    const image = /** @type {Size} */ (this.image)
    const { style } = this.picture
    style.width = `${image.width * view.scale}px`
    style.height = `${image.height * view.scale}px`
    style.transform = `translate(${view.x}px, ${view.y}px)`
    const { left, top, width, height } = visible(view, image, this.size)
    Object.assign(this.overlay.style, {
      left: `${left}px`,
      top: `${top}px`,
      width: `${width}px`,
      height: `${height}px`,
    })
    this.overlay.width = Math.max(1, Math.round(width * sharpness()))
    this.overlay.height = Math.max(1, Math.round(height * sharpness()))
    this.draw()
    this.onView()
    clearTimeout(this.resting)
    this.resting = setTimeout(() => this.repaint(), REST)
  }

  /** Recompute the masks, and draw. */
  repaint() {
    if (!this.image) return
    clearTimeout(this.resting)
    const { scale, x, y } = this.view
    const seen = visible(this.view, this.image, this.size)
    const fine = Math.min(sharpness(), Math.sqrt(PIXELS / (seen.width * seen.height)))
    const whole = {
      width: Math.max(1, Math.round(this.image.width * scale * fine)),
      height: Math.max(1, Math.round(this.image.height * scale * fine)),
    }
    const left = Math.max(0, Math.floor((seen.left - x) * fine))
    const top = Math.max(0, Math.floor((seen.top - y) * fine))
    const right = Math.min(whole.width, Math.ceil((seen.left - x + seen.width) * fine))
    const bottom = Math.min(whole.height, Math.ceil((seen.top - y + seen.height) * fine))
    const layer = this.content.layer(whole, { left, top, right, bottom })
    this.layer = layer && this.paint(layer, Math.max(1, Math.round(2 * fine)))
    this.draw()
  }

  /** @param {Layer} layer @param {number} edge */
  paint({ labels, width, height, part, colors }, edge) {
    const { canvas } = this
    if (canvas.width < width) canvas.width = width
    if (canvas.height < height) canvas.height = height
    this.masks.putImageData(tinted(labels, width, height, colors, this.look(), edge), 0, 0)
    return { size: { width, height }, part }
  }

  /** Draw the last computed masks, and the marks. */
  draw() {
    const { context, image, view, layer } = this
    if (!image) return
    const { left, top } = visible(view, image, this.size)
    const fine = sharpness()
    context.setTransform(1, 0, 0, 1, 0, 0)
    context.clearRect(0, 0, this.overlay.width, this.overlay.height)
    context.setTransform(fine, 0, 0, fine, (view.x - left) * fine, (view.y - top) * fine)
    if (layer) {
      const [width, height] = [image.width * view.scale, image.height * view.scale]
      const { part, size } = layer
      context.imageSmoothingEnabled = true
      context.drawImage(
        this.canvas,
        0,
        0,
        size.width,
        size.height,
        part.left * width,
        part.top * height,
        part.width * width,
        part.height * height,
      )
    }
    this.content.marks(context, view.scale)
  }
}

/** Screen pixels for one pixel of the page. */
const sharpness = () => Math.min(devicePixelRatio || 1, 2)

/** @param {HTMLElement} frame @returns {Size} */
const sizeOf = ({ clientWidth, clientHeight }) => ({ width: clientWidth, height: clientHeight })
