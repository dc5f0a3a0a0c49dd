// Finds the frame, slice and channel of each page of a TIFF, from the descriptions that ImageJ, OME and
// tifffile write. No DOM.

/**
 * @typedef {object} Layout
 * @property {number} frames over time; without time, the slices
 * @property {number} slices of each frame
 * @property {string[]} channels their names for people
 * @property {(frame: number, slice: number, channel: number) => number} pageOf the index of its page
 * @property {string[]} notes sentences about what is not shown or not certain
 */
/** @typedef {{ name: string, size: number }} Axis T, Z, C, or another letter */

/**
 * @param {object} args
 * @param {string} args.description of the first page
 * @param {number} args.count of pages
 * @param {string} args.file its name
 * @param {Axis[] | null} [args.axes] the slowest first, if the file has them elsewhere
 * @returns {Layout}
 */
export function layoutOf({ description, count, file, axes = null }) {
  if (isOme(description)) return ome(description, count, file)
  const described = axes ?? imagej(description) ?? shaped(description) ?? [{ name: 'T', size: count }]
  const pages = product(described)
  if (pages === count) return arranged(described, unnamed(description, count, file))
  const sizes = described.map(({ name, size }) => `${name} ${size}`).join(', ')
  const note = `describes ${pages} pages (${sizes}), but it has ${count}: each page is a frame.`
  return plain(count, pages === 1 ? [] : [`${file} ${note}`])
}

/** A note if tifffile left the axes without names. @type {(...args: [string, number, string]) => string[]} */
function unnamed(description, count, file) {
  const { shape, axes } = tifffile(description) ?? { shape: [] }
  let last = 0
  for (let pages = 1; pages < count && last < shape.length; ) pages *= shape[last++]
  const sizes = shape.slice(0, last).join(' × ')
  return axes || last < 2 ? [] : [`${file} does not name its axes (${sizes}): each page is a frame.`]
}

/** Whether a description is OME's. @param {string} description */
export const isOme = (description) => /<(\w+:)?OME\b/.test(description)

/**
 * The number of images that are stored one after the other at the first page's pixels: above 4 GiB
 * ImageJ writes one directory for all of them, tifffile on request.
 *
 * @param {string} description
 * @param {number} samples of one image
 */
export function imagesOf(description, samples) {
  const written = tifffile(description)
  if (!written) return numberOf(description, 'images') ?? 1
  const all = written.shape.reduce((/** @type {number} */ product, size) => product * size, 1)
  return written.truncated ? all / samples : 1
}

/** @param {Axis[]} axes */
const product = (axes) => axes.reduce((all, { size }) => all * size, 1)

/** @param {number} count @param {string[]} notes */
const plain = (count, notes) => arranged([{ name: 'T', size: count }], notes)

/**
 * The layout of pages whose index runs through axes.
 *
 * @param {Axis[]} axes the slowest first
 * @param {string[]} notes
 * @param {string[]} [names] of channels
 * @param {(index: number) => number} [pageAt]
 * @returns {Layout}
 */
function arranged(axes, notes, names = [], pageAt = (index) => index) {
  let step = 1
  const strides = axes.toReversed().map(({ name, size }) => {
    const axis = { name, size, step }
    step *= size
    return axis
  })
  const of = (/** @type {string} */ name) => strides.filter((axis) => axis.name === name)
  // Axes that are neither depth nor colour count as time: positions, for example.
  const times = strides.filter(({ name, size }) => !'ZC'.includes(name) && size > 1)
  const [framed, sliced] = times.length ? [times, of('Z')] : [of('Z'), []]
  const at = (/** @type {typeof strides} */ some, /** @type {number} */ index) =>
    some.reduce((sum, { size, step: each }) => {
      const digit = index % size
      index = Math.floor(index / size)
      return sum + digit * each
    }, 0)
  const channels = product(of('C'))
  if (times.length > 1) {
    const letters = times.map(({ name }) => name).toReversed().join(' and ')
    notes = [...notes, `The axes ${letters} are shown one after the other as frames.`]
  }
  return {
    frames: product(framed),
    slices: product(sliced),
    channels: Array.from({ length: channels }, (_, i) => names[i] || `Channel ${i + 1}`),
    pageOf: (frame, slice, channel) =>
      pageAt(at(framed, frame) + at(sliced, slice) + at(of('C'), channel)),
    notes,
  }
}

/** @param {string} description @param {string} key @returns {number | null} */
function numberOf(description, key) {
  if (!description.startsWith('ImageJ=')) return null
  const [, number] = description.match(new RegExp(`^${key}=(\\d+)`, 'm')) ?? []
  return number === undefined ? null : Number(number)
}

/** The axes of ImageJ's stacks: the channels of a slice are together. @param {string} description */
function imagej(description) {
  const [T, Z, C] = ['frames', 'slices', 'channels'].map((key) => numberOf(description, key) ?? 1)
  if (!description.startsWith('ImageJ=')) return null
  if (T * Z * C === 1) return [{ name: 'T', size: numberOf(description, 'images') ?? 1 }]
  return [{ name: 'T', size: T }, { name: 'Z', size: Z }, { name: 'C', size: C }]
}

/**
 * tifffile's own description.
 *
 * @param {string} description
 * @returns {{ shape: number[], axes?: string, truncated?: boolean } | null}
 */
function tifffile(description) {
  if (!description.startsWith('{"shape":')) return null
  try {
    return JSON.parse(description)
  } catch {
    return null
  }
}

/** The axes that tifffile wrote. @param {string} description @returns {Axis[] | null} */
function shaped(description) {
  const { shape, axes = '' } = tifffile(description) ?? { shape: [] }
  const pages = [...axes].findIndex((letter) => 'YXS'.includes(letter))
  if (pages < 0 || axes.length !== shape.length) return null
  return [...axes.slice(0, pages)].map((name, i) => ({ name, size: shape[i] }))
}

/** @param {string} xml @param {number} count @param {string} file @returns {Layout} */
function ome(xml, count, file) {
  const [image, ...others] = elements(xml, 'Image')
  const [pixels] = elements(image?.content ?? '', 'Pixels')
  const order = pixels?.attributes.DimensionOrder
  if (!order) {
    return plain(count, [`The axes of ${file} are in another file: each of its pages is a frame.`])
  }
  const named = elements(pixels.content, 'Channel')
  const samples = Number(named[0]?.attributes.SamplesPerPixel ?? 1)
  const sizes = Object.fromEntries(
    ['T', 'Z', 'C'].map((name) => [name, Number(pixels.attributes[`Size${name}`] ?? 1)]),
  )
  sizes.C = Math.max(1, sizes.C / samples)
  const [fast, middle] = order.slice(2)
  const strides = { [fast]: 1, [middle]: sizes[fast], [order[4]]: sizes[fast] * sizes[middle] }
  const notes = []
  if (others.length) notes.push(`${file} has ${others.length + 1} images: the first is shown.`)

  // The page of each plane; planes can be missing, or in further files.
  const blocks = elements(pixels.content, 'TiffData').map(({ attributes, content }) => {
    const [uuid] = elements(content, 'UUID')
    return { block: attributes, name: uuid?.attributes.FileName }
  })
  const files = new Set(blocks.map(({ name }) => name).filter(Boolean))
  /** @type {Map<number, number>} */
  const pages = new Map()
  for (const { block, name } of blocks) {
    if (files.size > 1 && name !== file) continue
    const first = ['T', 'Z', 'C'].reduce((sum, axis) => {
      return sum + Number(block[`First${axis}`] ?? 0) * strides[axis]
    }, 0)
    const length = Number(block.PlaneCount ?? (block.IFD === undefined ? count : 1))
    for (let i = 0; i < length; i++) {
      const page = Number(block.IFD ?? 0) + i
      if (page < count) pages.set(first + i, page)
    }
  }
  const has = (/** @type {string} */ axis) => {
    const all = [...pages.keys()].map((plane) => Math.floor(plane / strides[axis]) % sizes[axis])
    return [...new Set(all)].sort((one, other) => one - other)
  }
  const [zs, cs] = [has('Z'), has('C')]
  const planeOf = (/** @type {number} */ t, /** @type {number} */ z, /** @type {number} */ c) =>
    t * strides.T + z * strides.Z + c * strides.C
  const isWhole = (/** @type {number} */ t) =>
    zs.every((z) => cs.every((c) => pages.has(planeOf(t, z, c))))
  const ts = has('T').filter(isWhole)
  if (files.size > 1) notes.push(`${file} is one of ${files.size} files: only its planes are shown.`)
  if (!ts.length) {
    notes.push(`${file} does not say where its planes are: each of its pages is a frame.`)
    return plain(count, notes)
  }
  const missing = sizes.T - ts.length
  if (missing && files.size < 2) {
    notes.push(`${missing} of ${sizes.T} frames of ${file} are incomplete and left out.`)
  }
  const size = { T: ts.length, Z: zs.length, C: cs.length }
  const axes = Object.entries(size).map(([name, size]) => ({ name, size }))
  const names = cs.map((c) => named[c]?.attributes.Name ?? `Channel ${c + 1}`)
  return arranged(axes, notes, names, (index) => {
    const [c, z] = [index % cs.length, Math.floor(index / cs.length) % zs.length]
    const t = Math.floor(index / (cs.length * zs.length))
    return /** @type {number} */ (pages.get(planeOf(ts[t], zs[z], cs[c])))
  })
}

/**
 * The elements with a name, with or without a prefix. Node.js lacks the browser's own parser.
 *
 * @param {string} xml
 * @param {string} name
 */
function elements(xml, name) {
  const tag = `(?:\\w+:)?${name}`
  const pattern = new RegExp(`<${tag}(\\s[^>]*?)?(?:/>|>([\\s\\S]*?)</${tag}>)`, 'g')
  return [...xml.matchAll(pattern)].map(([, attributes = '', content = '']) => ({
    attributes: /** @type {Record<string, string | undefined>} */ (
      Object.fromEntries(
        [...attributes.matchAll(/([\w:]+)\s*=\s*(?:"([^"]*)"|'([^']*)')/g)].map(
          ([, key, one, other]) => [key, unescaped(one ?? other)],
        ),
      )
    ),
    content,
  }))
}

/** @type {Record<string, string>} */
const ENTITIES = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" }

/** @param {string} text of an attribute */
const unescaped = (text) =>
  text.replace(/&(?:#(x?)([\da-f]+)|(\w+));/gi, (all, hex, number, name) =>
    number ? String.fromCodePoint(parseInt(number, hex ? 16 : 10)) : (ENTITIES[name] ?? all),
  )
