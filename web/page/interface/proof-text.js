// The text about a model's proof in a browser. No DOM.


const NAMES = { wasm: 'WASM', webgpu: 'WebGPU' }

/**
 * @param {any} manifest
 * @param {string | undefined} variant its name, if there are variants
 * @param {import('../shared/model.js').Provider} provider
 * @returns {{ proven: boolean, text: string }}
 */
export function proofOf(manifest, variant, provider) {
  const listed = (manifest.variants ?? []).find((/** @type {any} */ { name }) => name === variant)
  const browser = listed ? listed.browser : manifest.browser
  if (!browser) {
    return { proven: false, text: 'Not proven in a browser: no browser has run these files.' }
  }
  const name = NAMES[provider]
  const figures = browser.providers?.[provider]
  if (!figures) {
    const text = `Not proven on ${name}: ${browser.browser} has not run these files there.`
    return { proven: false, text }
  }
  const needed = listed && manifest.files?.[listed.files?.encoder]?.needs?.[provider]
  const needs = needed ? ` It needs an adapter with ${needed}.` : ''
  if (!figures.proven) {
    return { proven: false, text: `Not proven on ${name}: ${ended(figures.reason)}${needs}` }
  }
  const parts = figures.parts ?? []
  const only = parts.length === 1 ? `, only the ${parts[0]}` : ''
  const emulated = figures.software ? ', emulated' : ''
  return { proven: true, text: `Proven on ${name} in ${browser.browser}${emulated}${only}.${needs}` }
}

/** @param {string | undefined} reason */
const ended = (reason = 'no reason is given') => (/[.!?]$/.test(reason) ? reason : `${reason}.`)
