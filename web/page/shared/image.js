// Decodes images and scales them on a canvas.


/**
 * @param {string} url of an image; an object URL works too
 * @returns {Promise<HTMLImageElement>} decoded, rotated by its EXIF data
 */
export async function loadImage(url) {
  const image = new Image()
  image.src = url
  await image.decode()
  return image
}

/**
 * The pixels of the image or a crop, at their size in the encoder's input; transparent ones on white.
 *
 * @param {HTMLImageElement | ImageBitmap} image
 * @param {import('./preprocessing.js').Placement} place
 * @returns {Uint8ClampedArray} RGBA
 */
export function scaledPixels(image, { scaledWidth, scaledHeight, width, height, crop }) {
  const canvas = new OffscreenCanvas(scaledWidth, scaledHeight)
  const context = /** @type {OffscreenCanvasRenderingContext2D} */ (
    canvas.getContext('2d', { willReadFrequently: true })
  )
  context.fillStyle = 'white'
  context.fillRect(0, 0, scaledWidth, scaledHeight)
  context.imageSmoothingQuality = 'high'
  if (crop) {
    const left = Math.round((crop.left * width) / crop.width)
    const top = Math.round((crop.top * height) / crop.height)
    context.drawImage(image, left, top, width, height, 0, 0, scaledWidth, scaledHeight)
  } else {
    context.drawImage(image, 0, 0, scaledWidth, scaledHeight)
  }
  return context.getImageData(0, 0, scaledWidth, scaledHeight).data
}
