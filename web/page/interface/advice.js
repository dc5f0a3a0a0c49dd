// What to do about a slow encoder.

const SLOW = 3000 // milliseconds for an image

/**
 * @param {any} manifest
 * @param {number} milliseconds that the encoder took for an image
 * @returns {string} a sentence, or an empty string
 */
export function advice({ model_type: architecture }, milliseconds) {
  if (milliseconds < SLOW) return ''
  if (/^vit_[blh]$/.test(architecture)) {
    return 'MobileSAM is several times as fast as SAM 1: `doit deploy:mobile_sam` builds it.'
  }
  if (architecture && !architecture.startsWith('sam2')) return ''
  return 'EdgeTAM is several times as fast as SAM 2: `doit deploy:edgetam` builds it.'
}
