// What is drawn over the image.

/** @typedef {OffscreenCanvasRenderingContext2D | CanvasRenderingContext2D} Context */

/**
 * A mask in colour, its edge opaque.
 *
 * @param {Uint8Array} mask
 * @param {number} width
 * @param {number} height
 */
export function tinted(mask, width, height) {
  const picture = new ImageData(width, height)
  const pixels = new Uint32Array(picture.data.buffer) // alpha, blue, green, red
  for (let i = 0; i < mask.length; i++) {
    if (!mask[i]) continue
    const inside = mask[i - 2] && mask[i + 2] && mask[i - 2 * width] && mask[i + 2 * width]
    pixels[i] = inside ? 0x73ff901e : 0xffff901e
  }
  return picture
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
