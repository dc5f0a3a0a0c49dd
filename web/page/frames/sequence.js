// Opens what has pictures: an image, a stack or time-lapse of several, a video.

import { loadImage } from '../shared/image.js'
import { Recent } from '../shared/recent.js'
import { Levels } from './gray.js'
import { Planes } from './planes.js'
import { isTiff, openTiff } from './tiff.js'
import { isVideo, openVideo } from './video.js'

/** @typedef {import('../image/view.js').Size} Size */
/** @typedef {HTMLImageElement | ImageBitmap} Picture */
/**
 * One frame, or several of one size.
 *
 * @typedef {object} Sequence
 * @property {string} file what a person calls it
 * @property {string} name the same without its ending
 * @property {number} count
 * @property {number} width of each frame, in pixels
 * @property {number} height
 * @property {HTMLElement} element what is seen
 * @property {(frame: number) => string} fileOf the name of a frame's file
 * @property {Planes} planes what can be chosen of channels and slices
 * @property {string[]} notes sentences on what is not shown of the files
 * @property {(frame: number) => Promise<Picture>} read
 * @property {(picture: Picture) => void} show a frame that was read
 * @property {() => void} close
 */
/**
 * Frames of one file.
 *
 * @typedef {Size & { count: number, read: (frame: number) => Promise<Picture>,
 *   notes?: string[], close?: () => void }} Reel
 */

/** How many frames are kept that were read last. */
const RECENT = 6

/**
 * The files as one sequence, in the order of their names.
 *
 * @param {File[]} files
 * @param {(done: number, total: number) => void} onProgress frames that were looked at
 * @returns {Promise<Sequence>}
 * @throws {Error} a sentence, where they cannot be read or their frames are not of one size
 */
export async function openFiles(files, onProgress) {
  const sorted = files.toSorted((one, other) =>
    one.name.localeCompare(other.name, undefined, { numeric: true }),
  )
  const video = sorted.find(isVideo)
  if (video && sorted.length > 1) {
    throw new Error(`${video.name} is a video: open it by itself, without other files.`)
  }
  const shared = { levels: /** @type {Levels | null} */ (null), planes: new Planes() }
  /** @type {{ file: File, reel: Reel, first: number }[]} */
  const parts = []
  let count = 0
  try {
    for (const file of sorted) {
      const reel = await openReel(file, shared, sorted.length, onProgress, count)
      parts.push({ file, reel, first: count })
      count += reel.count
      sameSize(parts[0], { file, reel })
    }
  } catch (error) {
    for (const { reel } of parts) reel.close?.()
    throw error
  }
  const [{ file, reel }] = parts
  const partOf = (/** @type {number} */ frame) =>
    /** @type {typeof parts[0]} */ (parts.findLast(({ first }) => first <= frame))
  /** @type {Recent<Promise<Picture>>} */
  const recent = new Recent(RECENT)
  const { planes } = shared
  let { version } = planes
  const read = (/** @type {number} */ frame) => {
    if (version !== planes.version) recent.clear()
    version = planes.version
    const { reel: of, first } = partOf(frame)
    const found = recent.get(frame) ?? of.read(frame - first)
    recent.set(frame, found)
    found.catch(() => recent.delete(frame))
    return found
  }
  return {
    file: file.name,
    name: withoutEnding(file.name),
    count,
    width: reel.width,
    height: reel.height,
    ...(await screen(reel, count, read)),
    fileOf: (frame) => fileOf(partOf(frame), frame),
    planes,
    notes: [...new Set(parts.flatMap((part) => part.reel.notes ?? []))],
    read,
    close: () => parts.forEach((part) => part.reel.close?.()),
  }
}

/**
 * @param {File} file
 * @param {{ levels: Levels | null, planes: Planes }} shared by all files
 * @param {number} files how many there are
 * @param {(done: number, total: number) => void} onProgress
 * @param {number} done frames before
 * @returns {Promise<Reel>}
 */
async function openReel(file, shared, files, onProgress, done) {
  if (isVideo(file)) return openVideo(file)
  if (!isTiff(file)) {
    if (files > 1) onProgress(done, files)
    return openImage(file)
  }
  const stack = await openTiff(file)
  const { width, height, frames: count, notes } = stack
  const { planes } = shared
  const levels = (shared.levels ??= new Levels(files * count * stack.slices))
  await planes.add(stack, levels, (index, frames) => {
    if (frames * files > 1) onProgress(done + index, Math.max(files, done + frames))
  })
  const read = async (/** @type {number} */ frame) => {
    const pixels = planes.paint(await planes.read(stack, frame), levels)
    return createImageBitmap(new ImageData(pixels, width, height))
  }
  return { count, width, height, notes, read }
}

/**
 * The name of a frame's own file: where several are in one, the one that holds it alone.
 *
 * @param {{ file: File, reel: Reel, first: number }} part
 * @param {number} frame
 */
function fileOf({ file, reel, first }, frame) {
  if (reel.count === 1) return file.name
  return `${withoutEnding(file.name)}-${String(frame - first + 1).padStart(4, '0')}.png`
}

/** @param {string} name */
const withoutEnding = (name) => name.replace(/\.[^.]*$/, '')

/** @param {File} file @returns {Promise<Reel>} */
async function openImage(file) {
  const url = URL.createObjectURL(file)
  try {
    const { naturalWidth: width, naturalHeight: height } = await loadImage(url)
    const read = () => loadImage(url)
    return { count: 1, width, height, read, close: () => URL.revokeObjectURL(url) }
  } catch {
    URL.revokeObjectURL(url)
    throw new Error(`${file.name} is not an image that this browser can read.`)
  }
}

/** @param {{ file: File, reel: Reel }} first @param {{ file: File, reel: Reel }} other */
function sameSize(first, other) {
  const [one, size] = [first.reel, other.reel]
  if (one.width !== size.width || one.height !== size.height) {
    throw differs(other.file.name, size, first.file.name, one)
  }
}

/** @param {string} which @param {Size} size @param {string} first @param {Size} expected */
const differs = (which, size, first, expected) =>
  new Error(
    `Frames must be of one size: ${which} is ${size.width} × ${size.height} pixels, ` +
      `${first} ${expected.width} × ${expected.height}.`,
  )

/**
 * What shows the frames: an image itself, or a canvas for several and for what is no element.
 *
 * @param {Size} size
 * @param {number} count
 * @param {(frame: number) => Promise<Picture>} read
 * @returns {Promise<Pick<Sequence, 'element' | 'show'>>}
 */
async function screen({ width, height }, count, read) {
  const first = await read(0)
  if (count === 1 && first instanceof HTMLImageElement) return { element: first, show: () => {} }
  const canvas = document.createElement('canvas')
  Object.assign(canvas, { width, height })
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d'))
  const show = (/** @type {Picture} */ picture) => {
    context.clearRect(0, 0, width, height)
    context.drawImage(picture, 0, 0, width, height)
  }
  show(first)
  return { element: canvas, show }
}
