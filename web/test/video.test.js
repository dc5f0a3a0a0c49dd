// How many frames a second a video has.
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { isVideo, rateFrom } from '../page/frames/video.js'

test('the rate is by the shortest time between two frames: some may not have been seen', () => {
  assert.equal(rateFrom([0, 0.25, 0.5, 1, 1.25]), 4)
})

test('a frame that is told twice does not count', () => {
  assert.equal(rateFrom([0, 0, 0.001, 0.5]), 1 / 0.499)
})

test('one frame has no rate', () => {
  assert.equal(rateFrom([0]), null)
})

test('a file is a video by its type, or by its ending where it has none', () => {
  const named = (/** @type {string} */ name, type = '') => isVideo(new File([], name, { type }))
  assert(named('a', 'video/mp4') && named('a.WEBM') && named('cells.avi'))
  assert(!named('a.png', 'image/png') && !named('mp4.tif'))
})
