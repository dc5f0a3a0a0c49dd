// Reads the frames of videos and animated images, each once, in the order of their times.

import { words } from '../shared/words.js'

/** @typedef {import('./sequence.js').Reel} Reel */
/** @typedef {Omit<Reel, 'paint'>} Frames */

/** The error for a browser that lacks a decoder. @param {File} file @param {string} decoder */
function without(file, decoder) {
  const where = isSecureContext
    ? 'Use a newer Chrome, Edge or Firefox'
    : 'Open this page over https or from localhost, for example through `ssh -L`'
  return new Error(
    `This browser lacks ${decoder}, which ${file.name} needs. ` +
      `${where}, or save the frames as a TIFF.`,
  )
}

/**
 * The frames of a GIF, or of an animated WebP, PNG or AVIF, each drawn over the frames before.
 *
 * @param {File} file
 * @param {string} type
 * @returns {Promise<Frames>}
 */
export async function openAnimation(file, type) {
  if (!('ImageDecoder' in globalThis)) throw without(file, 'ImageDecoder')
  if (!(await ImageDecoder.isTypeSupported(type))) throw undecodable(file, type)
  const decoder = new ImageDecoder({ data: file.stream(), type, colorSpaceConversion: 'none' })
  try {
    await decoder.completed
    const count = decoder.tracks.selectedTrack?.frameCount ?? 0
    const read = async (/** @type {number} */ frame) => {
      const { image } = await decoder.decode({ frameIndex: frame })
      const picture = await createImageBitmap(image, { colorSpaceConversion: 'none' })
      image.close()
      return picture
    }
    const { width, height } = await read(0)
    return { count, width, height, read, close: () => decoder.close() }
  } catch (error) {
    decoder.close()
    throw new Error(`${file.name} is broken, or not an image that this page can read: ${words(error)}`)
  }
}

/**
 * @param {File} file
 * @returns {Promise<Frames>}
 * @throws {Error} with a sentence, if the browser cannot decode the video
 */
export async function openVideo(file) {
  if (!('VideoDecoder' in globalThis)) throw without(file, 'VideoDecoder')
  const { ALL_FORMATS, BlobSource, CanvasSink, EncodedPacketSink, Input } = await import('mediabunny')
  const input = new Input({ source: new BlobSource(file), formats: ALL_FORMATS })
  /** @type {AsyncGenerator<import('mediabunny').WrappedCanvas, void> | null} */
  let following = null
  const close = () => {
    void following?.return()
    input.dispose()
  }
  try {
    const track = await input.getPrimaryVideoTrack()
    if (!track) throw new Error(`${file.name} has sound, but no pictures.`)
    const codec = await track.getCodec()
    if (!(await track.canDecode())) throw undecodable(file, codec ?? 'an unknown codec')
    const times = await timesOf(new EncodedPacketSink(track), codec)
    if (!times.length) throw new Error(`${file.name} is a video without frames.`)
    const sink = new CanvasSink(track)
    let next = 0 // the frame that `following` yields next
    let before = Promise.resolve()
    const decode = async (/** @type {number} */ frame) => {
      if (!following || frame !== next) {
        await following?.return()
        following = sink.canvases(times[frame])
      }
      const { value } = await following.next()
      next = frame + 1
      if (value) return createImageBitmap(value.canvas)
      following = null
      throw new Error(`Frame ${next} of ${file.name} cannot be decoded.`)
    }
    const read = (/** @type {number} */ frame) => {
      const picture = before.then(() => decode(frame)) // one at a time
      before = picture.then(() => {}, () => {})
      return picture
    }
    const { width, height } = await read(0)
    return { count: times.length, width, height, read, close }
  } catch (error) {
    close()
    const isSentence = error instanceof Error && error.message.startsWith(file.name)
    throw isSentence ? error : new Error(`${file.name} is broken, or not a video: ${words(error)}`)
  }
}

/** @param {File} file @param {string} codec */
const undecodable = (file, codec) =>
  new Error(
    `${file.name} is encoded as ${codec}, which this browser cannot decode. ` +
      'Try another browser, or save the frames as a TIFF.',
  )

/**
 * The times at which frames are shown, in seconds; a container has them in decoding order.
 *
 * @param {import('mediabunny').EncodedPacketSink} packets
 * @param {string | null} codec
 * @returns {Promise<number[]>} ascending
 */
async function timesOf(packets, codec) {
  /** @type {Set<number>} */
  const times = new Set()
  const metadataOnly = codec !== 'vp8' // VP8 marks frames that are never shown with a bit
  for await (const { data, duration, timestamp } of packets.packets(undefined, undefined, { metadataOnly })) {
    const isHidden = codec === 'vp8' && !(data[0] & 0x10)
    if (!isHidden && timestamp + duration >= 0) times.add(timestamp)
  }
  return [...times].sort((one, other) => one - other)
}
