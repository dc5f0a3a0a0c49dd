// The contract of a client's files: their tensors by role, as in manifest.json.

/**
 * The purpose of a tensor, independent of its name in a client.
 *
 * @typedef {'image' | 'high_res_feats_0' | 'high_res_feats_1' | 'image_embed' | 'point_coords' |
 *   'point_labels' | 'boxes' | 'mask_input' | 'has_mask_input' | 'orig_im_size' | 'masks' |
 *   'iou_predictions' | 'object_score_logits' | 'low_res_masks'} Role
 */
/**
 * A graph's input or output. A size that the caller chooses is a name.
 *
 * @typedef {{ name: string, role: Role, dtype: string, shape: (number | string)[] }} TensorInfo
 */
/** @typedef {{ file: string, inputs: TensorInfo[], outputs: TensorInfo[] }} Part */
/**
 * @typedef {object} Prompts
 * @property {'one' | 'many'} at_once how many prompts a run of the decoder takes
 * @property {boolean} padding_point whether a point (0, 0) with the padding label follows the points of
 *   a prompt without a box
 * @property {number} mask_threshold logits above it are inside
 */
/**
 * @typedef {object} Manifest
 * @property {Record<string, { size: number, sha256: string, needs?: { onnxruntime: string } }>} files
 * @property {Part} encoder missing for a decoder without an encoder, which the page does not show
 * @property {Part} decoder
 * @property {import('./preprocessing.js').Preprocessing} preprocessing
 * @property {Prompts} prompts
 * @property {import('./memory-bank.js').Constants & { files: Record<string, string> }} [video] a
 *   tracker's constants, and the file of each graph that it runs beside the encoder
 * @property {{ choice: 'multi' | 'ranked' | 'best' | 'single' | 'all' }} masks `ranked`: the mask
 *   with the highest score comes first
 */

/** @param {TensorInfo[]} tensors @param {Role} role @returns {TensorInfo | undefined} */
export function findRole(tensors, role) {
  return tensors.find((tensor) => tensor.role === role)
}

/**
 * @param {TensorInfo[]} tensors
 * @param {Role} role
 * @returns {TensorInfo}
 * @throws {Error} if no tensor has the role
 */
export function withRole(tensors, role) {
  const tensor = findRole(tensors, role)
  if (!tensor) {
    throw new Error(`manifest.json has no tensor with the role ${role}; deploy the model again`)
  }
  return tensor
}

/**
 * The side of the square that the encoder computes on, in pixels.
 *
 * @param {Manifest} manifest
 * @returns {number}
 */
export function inputSize(manifest) {
  return Math.max(...inputShape(manifest))
}

/**
 * The sizes of the encoder's input.
 *
 * @param {Manifest} manifest
 * @returns {number[]}
 */
export function inputShape(manifest) {
  return withRole(manifest.encoder.inputs, 'image').shape.map(Number)
}

/**
 * Whether the decoder can start from a previous mask.
 *
 * @param {Manifest} manifest
 * @returns {boolean}
 */
export function refines(manifest) {
  return findRole(manifest.decoder.inputs, 'mask_input') !== undefined
}

/**
 * The output whose masks are used: if a client has masks at the image's size, the low-resolution
 * logits beside them.
 *
 * @param {Manifest} manifest
 * @returns {TensorInfo}
 */
export function maskOutput({ decoder: { outputs } }) {
  return findRole(outputs, 'low_res_masks') ?? withRole(outputs, 'masks')
}
