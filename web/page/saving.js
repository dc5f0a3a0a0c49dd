// Files that a person gets.

/**
 * @param {Uint8ClampedArray<ArrayBuffer>} rgba
 * @param {number} width
 * @param {number} height
 * @param {string} name
 */
export async function downloadPicture(rgba, width, height, name) {
  const canvas = new OffscreenCanvas(width, height)
  canvas.getContext('2d')?.putImageData(new ImageData(rgba, width, height), 0, 0)
  download(await canvas.convertToBlob({ type: 'image/png' }), name)
}

/** @param {unknown} value @param {string} name */
export function downloadJson(value, name) {
  download(new Blob([JSON.stringify(value)], { type: 'application/json' }), name)
}

/** @param {Blob} blob @param {string} name */
function download(blob, name) {
  const link = document.createElement('a')
  link.href = URL.createObjectURL(blob)
  link.download = name
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000)
}
