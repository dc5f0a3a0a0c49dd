// Opens an image, a stack or time-lapse of several, or a video.

import { Recent } from '../shared/recent.js'
import { isPlain, Levels, pixelsOf } from './gray.js'
import { contentOf } from './kind.js'
import { Planes } from './planes.js'
import { deepPng, openStill, ranged, samplesOfPicture } from './still.js'
import { openTiff } from './tiff.js'
import { openAnimation, openVideo } from './video.js'

/** @typedef {import('../image/view.js').Size} Size */
/** @typedef {HTMLImageElement | ImageBitmap} Picture */
/**
 * One frame, or several of one size.
 *
 * @typedef {object} Sequence
 * @property {string} file its name for people
 * @property {string} name the same without its suffix
 * @property {number} count
 * @property {number} width of each frame, in pixels
 * @property {number} height
 * @property {HTMLElement} element the element that shows the first frame
 * @property {Levels} levels the black and white values; a change takes effect with the next `read`
 * @property {(frame: number) => string} fileOf the name of a frame's file
 * @property {Planes} planes the choice of channels and slices
 * @property {string[]} notes sentences about what is not shown of the files
 * @property {(frame: number) => Promise<Picture>} read
 * @property {(picture: Picture) => void} show shows a frame that was read, in the element's place
 * @property {() => void} close
 */
/**
 * The frames of one file: read as stored, then painted with the current levels.
 *
 * @typedef {Size & { count: number, element?: HTMLImageElement, read: (frame: number) => Promise<any>,
 *   paint: (source: any) => Promise<Picture>, notes?: string[], close?: () => void }} Reel
 */

/** How many of the frames read last are kept. */
const RECENT = 6
/** The number of frames of a video that are examined for its range. */
const LOOKED_AT = 5
/** The limits of a browser's canvas, which shows the frames. */
const MOST = { side: 65_535, pixels: 2 ** 28 }

/**
 * Open files as one sequence, in the order of their names.
 *
 * @param {File[]} files
 * @param {(done: number, total: number) => void} onProgress examined frames
 * @returns {Promise<Sequence>}
 * @throws {Error} with a sentence, if files cannot be read or their frames differ in size
 */
export async function openFiles(files, onProgress) {
  const sorted = files.toSorted((one, other) =>
    one.name.localeCompare(other.name, undefined, { numeric: true }),
  )
  const kinds = await Promise.all(sorted.map(contentOf))
  const video = sorted[kinds.findIndex(({ kind }) => kind === 'video')]
  if (video && sorted.length > 1) {
    throw new Error(`${video.name} is a video: open it by itself, without other files.`)
  }
  const shared = { levels: /** @type {Levels | null} */ (null), planes: new Planes() }
  /** @type {{ file: File, reel: Reel, first: number }[]} */
  const parts = []
  let count = 0
  try {
    for (const [index, file] of sorted.entries()) {
      const reel = await openReel(file, kinds[index], shared, sorted.length, onProgress, count)
      parts.push({ file, reel, first: count })
      count += reel.count
      sameSize(parts[0], { file, reel })
    }
  } catch (error) {
    for (const { reel } of parts) reel.close?.()
    throw error
  }
  const [{ file, reel }] = parts
  const { planes } = shared
  const levels = /** @type {Levels} */ (shared.levels)
  const partOf = (/** @type {number} */ frame) =>
    /** @type {typeof parts[0]} */ (parts.findLast(({ first }) => first <= frame))
  /** @type {Recent<Promise<unknown>>} */
  const recent = new Recent(RECENT)
  let { version } = planes
  const read = async (/** @type {number} */ frame) => {
    if (version !== planes.version) recent.clear()
    version = planes.version
    const { reel: of, first } = partOf(frame)
    const source = recent.get(frame) ?? of.read(frame - first)
    recent.set(frame, source)
    source.catch(() => recent.delete(frame))
    return of.paint(await source)
  }
  return {
    file: file.name,
    name: withoutEnding(file.name),
    count,
    width: reel.width,
    height: reel.height,
    levels,
    ...(await screen(reel, count, levels, read)),
    fileOf: (frame) => fileOf(partOf(frame), frame),
    planes,
    notes: [...new Set(parts.flatMap((part) => part.reel.notes ?? []))],
    read,
    close: () => parts.forEach((part) => part.reel.close?.()),
  }
}

/**
 * @param {File} file
 * @param {import('./kind.js').Content} content
 * @param {{ levels: Levels | null, planes: Planes }} shared by all files
 * @param {number} files the number of files
 * @param {(done: number, total: number) => void} onProgress
 * @param {number} done the number of frames in earlier files
 * @returns {Promise<Reel>}
 */
async function openReel(file, { kind, type, size }, shared, files, onProgress, done) {
  if (size) refuseTooLarge(file, size)
  if (kind === 'tiff') return openStack(file, shared, files, onProgress, done)
  if (files > 1) onProgress(done, files)
  if (kind === 'deep') return openDeep(file, shared, files)
  const frames = await (kind === 'video'
    ? openVideo(file)
    : kind === 'animation'
      ? openAnimation(file, type)
      : openStill(file, type))
  try {
    refuseTooLarge(file, frames)
    const looked = Math.min(frames.count, LOOKED_AT)
    const levels = (shared.levels ??= new Levels(files * looked))
    const { first = null, ...reel } = /** @type {Reel & { first?: Picture }} */ (frames)
    const { count } = reel
    const only = files === 1 ? first : null // with many files, keep no decoded pictures here
    for (let i = 0; i < looked; i++) {
      const picture = first ?? (await frames.read(Math.floor(((i + 0.5) * count) / looked)))
      for (const plane of samplesOfPicture(picture, reel)) levels.add(0, plane, true)
    }
    const read = only ? async () => only : reel.read
    return { ...reel, read, paint: (picture) => ranged(picture, reel, levels.of(0)) }
  } catch (error) {
    frames.close?.()
    throw error
  }
}

/** @param {File} file @param {{ levels: Levels | null }} shared @param {number} files @returns {Promise<Reel>} */
async function openDeep(file, shared, files) {
  const first = await deepPng(file)
  const { width, height } = first
  const levels = (shared.levels ??= new Levels(files))
  for (const plane of first.planes) {
    levels.add(0, first.alpha ? plane.filter((_, i) => first.alpha?.[i]) : plane, false)
  }
  const read = async () => (files > 1 ? deepPng(file) : first)
  const paint = async (/** @type {typeof first} */ { planes, alpha }) => {
    const pixels = pixelsOf(planes, levels.of(0))
    alpha?.forEach((value, i) => (pixels[4 * i + 3] = value / 257))
    return createImageBitmap(new ImageData(pixels, width, height))
  }
  return { count: 1, width, height, read, paint }
}

/**
 * @param {File} file
 * @param {{ levels: Levels | null, planes: Planes }} shared
 * @param {number} files
 * @param {(done: number, total: number) => void} onProgress
 * @param {number} done
 * @returns {Promise<Reel>}
 */
async function openStack(file, shared, files, onProgress, done) {
  const stack = await openTiff(file)
  const { width, height, frames: count, notes } = stack
  refuseTooLarge(file, stack)
  const { planes } = shared
  const levels = (shared.levels ??= new Levels(files * count * stack.slices))
  await planes.add(stack, levels, (index, frames) => {
    if (frames * files > 1) onProgress(done + index, Math.max(files, done + frames))
  })
  /** @param {import('./planes.js').Chosen} chosen */
  const paint = async (chosen) =>
    createImageBitmap(new ImageData(planes.paint(chosen, levels), width, height))
  return { count, width, height, notes, read: (frame) => planes.read(stack, frame), paint }
}

/**
 * The file name of a frame; for a file with several frames, the name that a separate file would have.
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

/** @param {File} file @param {Size} size */
function refuseTooLarge(file, { width, height }) {
  if (Math.max(width, height) <= MOST.side && width * height <= MOST.pixels) return
  throw new Error(
    `${file.name} has ${width} × ${height} pixels, but this page shows at most ${MOST.side} a side ` +
      `and ${MOST.pixels} in all: crop it, or save it smaller.`,
  )
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
    `Frames must have one size: ${which} has ${size.width} × ${size.height} pixels, ` +
      `${first} has ${expected.width} × ${expected.height}.`,
  )

/**
 * The element that shows the frames: the image itself, or a canvas for several frames, for pictures
 * without an element, and for a changed range.
 *
 * @param {Reel} reel
 * @param {number} count
 * @param {Levels} levels
 * @param {(frame: number) => Promise<Picture>} read
 * @returns {Promise<Pick<Sequence, 'element' | 'show'>>}
 */
async function screen({ width, height, element }, count, levels, read) {
  const canvas = document.createElement('canvas')
  /** @type {HTMLElement} */
  let shown = canvas
  const show = (/** @type {Picture} */ picture) => {
    const wanted = element && count === 1 && isPlain(levels.of(0)) ? element : canvas
    shown.replaceWith(wanted)
    shown = wanted
    if (shown !== canvas) return
    if (canvas.width !== width) Object.assign(canvas, { width, height })
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d'))
    context.clearRect(0, 0, width, height)
    context.drawImage(picture, 0, 0, width, height)
  }
  show(await read(0))
  return { element: shown, show }
}
