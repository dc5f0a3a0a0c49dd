// Reads the frames of a video with the browser's own decoder.

/** Frames a second where the browser does not tell when each is shown. */
const USUAL_RATE = 25
/** Of how many frames the times are looked at. */
const LOOKED_AT = 12
/** How long these may take to come, in milliseconds. */
const PATIENCE = 4000
/** The shortest that a frame is shown, in seconds: nearer times are the same frame's. */
const SHORTEST = 1 / 130

/** @param {File} file */
export const isVideo = ({ name, type }) =>
  type.startsWith('video/') || /\.(mp4|m4v|mov|webm|mkv|avi|ogv|mpe?g|wmv)$/i.test(name)

/**
 * A video's frames, all shown for as long as the shortest of the first.
 *
 * @param {File} file
 * @returns {Promise<{ count: number, width: number, height: number,
 *   read: (frame: number) => Promise<ImageBitmap>, close: () => void }>}
 * @throws {Error} a sentence, where the browser cannot decode it
 */
export async function openVideo(file) {
  const url = URL.createObjectURL(file)
  const video = document.createElement('video')
  Object.assign(video, { muted: true, playsInline: true, preload: 'auto' })
  const close = () => {
    video.removeAttribute('src')
    video.load()
    URL.revokeObjectURL(url)
  }
  const undecodable = () => new Error(`${file.name} is not a video that this browser can decode.`)
  /** @param {string} event @param {() => void} begin */
  const after = (event, begin) =>
    new Promise((resolve, reject) => {
      const heard = new AbortController()
      const hear = (/** @type {string} */ name, /** @type {(value?: any) => void} */ then) =>
        video.addEventListener(name, () => (heard.abort(), then()), { signal: heard.signal })
      hear(event, resolve)
      hear('error', () => reject(undecodable()))
      begin()
    })

  try {
    await after('loadeddata', () => (video.src = url))
    if (!video.videoWidth) throw undecodable()
    if (!Number.isFinite(video.duration)) {
      // A recording that was not finished tells its duration once its end was looked for.
      await after('durationchange', () => (video.currentTime = Number.MAX_SAFE_INTEGER))
    }
    const rate = await rateOf(video)
    const { duration, videoWidth: width, videoHeight: height } = video
    const count = Math.max(1, Math.round(duration * rate))
    let before = Promise.resolve()
    /** @param {number} frame */
    const seek = async (frame) => {
      // Its middle: a time on the border of two frames may show either.
      const time = Math.min((frame + 0.5) / rate, duration)
      if (video.currentTime !== time) await after('seeked', () => (video.currentTime = time))
      return createImageBitmap(video)
    }
    const read = (/** @type {number} */ frame) => {
      const found = before.then(() => seek(frame)) // one place at a time
      before = found.then(() => {}, () => {})
      return found
    }
    return { count, width, height, read, close }
  } catch (error) {
    close()
    throw error
  }
}

/** Frames a second. @param {HTMLVideoElement} video @returns {Promise<number>} */
async function rateOf(video) {
  if (!('requestVideoFrameCallback' in video)) return USUAL_RATE
  /** @type {number[]} */
  const times = []
  await new Promise((resolve) => {
    const waiting = setTimeout(resolve, PATIENCE)
    const done = () => (clearTimeout(waiting), resolve(null))
    /** @type {VideoFrameRequestCallback} */
    const note = (_, { mediaTime }) => {
      times.push(mediaTime)
      if (times.length < LOOKED_AT) video.requestVideoFrameCallback(note)
      else done()
    }
    video.requestVideoFrameCallback(note)
    video.addEventListener('ended', done, { once: true })
    video.currentTime = 0
    video.play().catch(done)
  })
  video.pause()
  return rateFrom(times) ?? USUAL_RATE
}

/**
 * Frames a second, by the shortest time between two: some may have been left out.
 *
 * @param {number[]} times in seconds, rising
 * @returns {number | null} null where there are not two frames
 */
export function rateFrom(times) {
  const lengths = times.slice(1).map((time, i) => time - times[i])
  const shortest = Math.min(...lengths.filter((length) => length > SHORTEST))
  return Number.isFinite(shortest) ? 1 / shortest : null
}
