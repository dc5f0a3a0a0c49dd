// Draws masks, numbers, prompts and the cross over the image.

/** @typedef {OffscreenCanvasRenderingContext2D | CanvasRenderingContext2D} Context */

/**
 * Masks in colour, with opaque edges if outlines are on.
 *
 * @param {ArrayLike<number>} labels for each pixel the number of its object, or 0
 * @param {number} width
 * @param {number} height
 * @param {Map<number, string>} colors of the objects, as `#rrggbb`
 * @param {{ opacity: number, outline: boolean }} look
 * @param {number} edge how wide edges are, in pixels
 */
export function tinted(labels, width, height, colors, { opacity, outline }, edge) {
  const picture = new ImageData(width, height)
  const pixels = new Uint32Array(picture.data.buffer) // alpha, blue, green, red
  const paints = new Uint32Array(Math.max(0, ...colors.keys()) + 1)
  for (const [number, color] of colors) paints[number] = swapped(color)
  const inner = Math.round(255 * opacity) * 0x1000000
  const [right, down] = [width - edge, height - edge]
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const label = labels[i]
      if (label === 0) continue
      // Pixels outside the picture count as inside, so a mask cut off there has no edge.
      const inside =
        !outline ||
        ((x < edge || labels[i - edge] === label) &&
          (x >= right || labels[i + edge] === label) &&
          (y < edge || labels[i - edge * width] === label) &&
          (y >= down || labels[i + edge * width] === label))
      pixels[i] = (inside ? inner : 0xff000000) + paints[label]
    }
  }
  return picture
}

/** Blue, green and red, 8 bits each. @param {string} color as `#rrggbb` */
function swapped(color) {
  const value = parseInt(color.slice(1), 16)
  return ((value & 0xff) << 16) + (value & 0xff00) + (value >> 16)
}

/**
 * The numbers of objects.
 *
 * @param {Context} context
 * @param {{ number: number, x: number, y: number }[]} places
 */
export function objectNumbers(context, places) {
  context.font = '600 14px system-ui, sans-serif'
  context.textAlign = 'center'
  context.textBaseline = 'middle'
  context.lineWidth = 3.5
  context.lineJoin = 'round'
  context.strokeStyle = 'rgb(0 0 0 / 75%)'
  context.fillStyle = 'white'
  for (const { number, x, y } of places) {
    context.strokeText(String(number), x, y)
    context.fillText(String(number), x, y)
  }
}

/**
 * A prompt's points and box.
 *
 * @param {Context} context
 * @param {import('../shared/preprocessing.js').Prompt} prompt
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
 * @param {number[]} corners two opposite corners: x, y, x, y
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
 * @param {{ x: number, y: number }} at
 */
export function crossHair(context, { x, y }) {
  outlined(context, 1.5, 'white', () => {
    context.moveTo(x - 18, y)
    context.lineTo(x + 18, y)
    context.moveTo(x, y - 18)
    context.lineTo(x, y + 18)
  })
}

/**
 * Stroke a path on a dark margin, so that it is visible on any image.
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
