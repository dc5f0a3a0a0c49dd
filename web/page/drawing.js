// What is drawn over the image.

/** @typedef {OffscreenCanvasRenderingContext2D | CanvasRenderingContext2D} Context */

/** The colour of a mask, and of the first object: blue, green and red, 8 bits each. */
const BLUE = 0xff901e

/**
 * Masks in colour, their edges opaque.
 *
 * @param {Uint8Array} labels for each pixel the number of its object, or 0
 * @param {number} width
 * @param {number} height
 */
export function tinted(labels, width, height) {
  const picture = new ImageData(width, height)
  const pixels = new Uint32Array(picture.data.buffer) // alpha, blue, green, red
  const colors = Uint32Array.from({ length: 256 }, (_, number) => color(number))
  for (let i = 0; i < labels.length; i++) {
    const label = labels[i]
    if (!label) continue
    const inside =
      labels[i - 2] === label &&
      labels[i + 2] === label &&
      labels[i - 2 * width] === label &&
      labels[i + 2 * width] === label
    pixels[i] = (inside ? 0x73000000 : 0xff000000) + colors[label]
  }
  return picture
}

/**
 * The colour of an object: neighbours in number are far apart in hue.
 *
 * @param {number} number from 1
 */
function color(number) {
  if (number === 1) return BLUE
  const hue = (210 + (number - 1) * 137.5) % 360 // degrees; the golden angle
  const channel = (/** @type {number} */ turn) => {
    const at = Math.abs((((hue + turn) % 360) + 360) % 360 - 180) / 60
    return Math.round(255 * (0.12 + 0.88 * Math.min(Math.max(at - 1, 0), 1)))
  }
  return channel(120) * 0x10000 + channel(240) * 0x100 + channel(0)
}

/**
 * The numbers of objects.
 *
 * @param {Context} context
 * @param {{ x: number, y: number }[]} places in parts of the canvas, of the first object first
 */
export function objectNumbers(context, places) {
  const { width, height } = context.canvas
  context.font = '600 15px system-ui, sans-serif'
  context.textAlign = 'center'
  context.textBaseline = 'middle'
  context.lineWidth = 3.5
  context.lineJoin = 'round'
  context.strokeStyle = 'rgb(0 0 0 / 75%)'
  context.fillStyle = 'white'
  places.forEach(({ x, y }, index) => {
    context.strokeText(String(index + 1), x * width, y * height)
    context.fillText(String(index + 1), x * width, y * height)
  })
}

/**
 * A prompt's points and box.
 *
 * @param {Context} context
 * @param {import('./preprocessing.js').Prompt} prompt
 * @param {number} right canvas pixels for one image pixel
 * @param {number} down
 */
export function promptMarks(context, { points, box }, right, down) {
  if (box) boxOutline(context, box, right, down)
  for (const { x, y, foreground } of points) {
    context.beginPath()
    context.arc(x * right, y * down, 9, 0, 2 * Math.PI)
    context.fillStyle = foreground ? '#12a150' : '#d92d20'
    context.fill()
    context.lineWidth = 2.5
    context.strokeStyle = 'white'
    context.stroke()
    // A plus or a minus, so that colour is not the only difference.
    context.beginPath()
    context.moveTo(x * right - 4, y * down)
    context.lineTo(x * right + 4, y * down)
    if (foreground) {
      context.moveTo(x * right, y * down - 4)
      context.lineTo(x * right, y * down + 4)
    }
    context.stroke()
  }
}

/**
 * @param {Context} context
 * @param {number[]} corners of two opposite ones: x, y, x, y
 * @param {number} right canvas pixels for one unit of the corners
 * @param {number} down
 */
export function boxOutline(context, [x0, y0, x1, y1], right, down) {
  outlined(context, 2.5, '#ffd60a', () => {
    context.rect(x0 * right, y0 * down, (x1 - x0) * right, (y1 - y0) * down)
  })
}

/**
 * The cross that the keyboard moves.
 *
 * @param {Context} context
 * @param {{ x: number, y: number }} at in parts of the canvas
 */
export function crossHair(context, at) {
  const x = at.x * context.canvas.width
  const y = at.y * context.canvas.height
  outlined(context, 1.5, 'white', () => {
    context.moveTo(x - 18, y)
    context.lineTo(x + 18, y)
    context.moveTo(x, y - 18)
    context.lineTo(x, y + 18)
  })
}

/**
 * Stroke a path on a dark margin, to be seen on any image.
 *
 * @param {Context} context
 * @param {number} lineWidth
 * @param {string} color
 * @param {() => void} path
 */
function outlined(context, lineWidth, color, path) {
  context.beginPath()
  path()
  context.lineWidth = lineWidth + 2.5
  context.strokeStyle = 'rgb(0 0 0 / 60%)'
  context.stroke()
  context.lineWidth = lineWidth
  context.strokeStyle = color
  context.stroke()
}
