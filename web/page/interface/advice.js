// What to do about an encoder that is slow.

const SLOW = 3000 // milliseconds for an image

/**
 * @param {any} manifest
 * @param {number} milliseconds that an image took
 * @returns {string} a sentence, or nothing
 */
export function advice(manifest, milliseconds) {
  if (milliseconds < SLOW || manifest.model_type === 'edgetam') return ''
  return 'EdgeTAM is several times as fast as SAM 2: `doit deploy:edgetam` builds it.'
}
