// Files that a person gets: masks, labels and annotations, of an image or of all frames.

import { addFrame, Coco, coco, grayPixels } from './export.js'
import { LabelStack } from './label-stack.js'
import { labelsOf, regionsOf } from './layers.js'

/** @typedef {import('./layers.js').Masked} Masked */
/** @typedef {import('../frames/sequence.js').Sequence} Sequence */
/** @typedef {import('./view.js').Size} Size */
/** @typedef {AsyncIterable<{ frame: number, shown: Masked[] }>} Frames the masks of all frames */

/**
 * One object: white on black.
 *
 * @param {Masked} object
 * @param {Size} size
 * @param {string} name
 */
export async function saveMask(object, size, name) {
  const labels = labelsOf([{ ...object, number: 1 }], size)
  return downloadPicture(grayPixels(labels, 0xff), size, `${name}-mask.png`)
}

/**
 * Each pixel as bright as its object's number.
 *
 * @param {ArrayLike<number>} labels
 * @param {Size} size
 * @param {string} name
 */
export async function saveLabels(labels, size, name) {
  return downloadPicture(grayPixels(labels), size, `${name}-labels.png`)
}

/**
 * Objects as COCO has them; those that overlap are whole.
 *
 * @param {Iterable<import('./export.js').Region>} regions
 * @param {Size} size
 * @param {Sequence} image
 */
export function saveCoco(regions, { width, height }, { file, name }) {
  return downloadJson(coco(file, width, height, regions), `${name}-coco.json`)
}

/** The labels of all frames, a page each. @param {Frames} frames @param {Sequence} sequence */
export async function saveLabelStack(frames, sequence) {
  const stack = new LabelStack(sequence.count, sequence.width, sequence.height)
  for await (const { shown } of frames) stack.add(labelsOf(shown, sequence))
  return download(stack.file, `${sequence.name}-labels.tif`)
}

/** The objects of all frames as COCO has them. @param {Frames} frames @param {Sequence} sequence */
export async function saveCocoFrames(frames, sequence) {
  const data = new Coco(sequence.width, sequence.height)
  for await (const { frame, shown } of frames) {
    addFrame(data, sequence.fileOf(frame), regionsOf(shown, sequence))
  }
  return downloadJson(data, `${sequence.name}-coco.json`)
}

/**
 * @param {Uint8ClampedArray<ArrayBuffer>} rgba
 * @param {Size} size
 * @param {string} name
 */
async function downloadPicture(rgba, { width, height }, name) {
  const canvas = new OffscreenCanvas(width, height)
  canvas.getContext('2d')?.putImageData(new ImageData(rgba, width, height), 0, 0)
  return download(await canvas.convertToBlob({ type: 'image/png' }), name)
}

/** @param {unknown} value @param {string} name */
const downloadJson = (value, name) =>
  download(new Blob([JSON.stringify(value)], { type: 'application/json' }), name)

/** @param {Blob} blob @param {string} name @returns {string} the name */
function download(blob, name) {
  const link = document.createElement('a')
  link.href = URL.createObjectURL(blob)
  link.download = name
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000)
  return name
}
