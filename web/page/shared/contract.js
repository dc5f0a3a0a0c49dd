// What a client's files are: their tensors by role, as manifest.json names them.

/**
 * What a tensor is for, whatever a client calls it.
 *
 * @typedef {'image' | 'high_res_feats_0' | 'high_res_feats_1' | 'image_embed' | 'point_coords' |
 *   'point_labels' | 'boxes' | 'mask_input' | 'has_mask_input' | 'orig_im_size' | 'masks' |
 *   'iou_predictions' | 'object_score_logits' | 'low_res_masks'} Role
 */
/**
 * A graph's input or output. A size is a name where the caller chooses it.
 *
 * @typedef {{ name: string, role: Role, dtype: string, shape: (number | string)[] }} TensorInfo
 */
/** @typedef {{ file: string, inputs: TensorInfo[], outputs: TensorInfo[] }} Part */
/**
 * @typedef {object} Prompts
 * @property {'one' | 'many'} at_once how many prompts a run of the decoder takes
 * @property {boolean} padding_point whether a point (0, 0) of the label for padding stands behind
 *   the points where there is no box
 * @property {number} mask_threshold what lies above it, of the logits, is inside
 */
/**
 * @typedef {object} Manifest
 * @property {Record<string, { size: number, sha256: string, needs?: { onnxruntime: string } }>} files
 * @property {Part} encoder absent for a decoder alone, which the page does not show
 * @property {Part} decoder
 * @property {import('./preprocessing.js').Preprocessing} preprocessing
 * @property {Prompts} prompts
 * @property {import('./memory-bank.js').Constants & { files: Record<string, string> }} [video] what
 *   a tracker must know, and the file of each graph that it runs beside the encoder
 * @property {{ choice: 'multi' | 'ranked' | 'best' | 'single' | 'all' }} masks `ranked`: the mask
 *   of the highest score is the first
 */

/** @param {TensorInfo[]} tensors @param {Role} role @returns {TensorInfo | undefined} */
export function findRole(tensors, role) {
  return tensors.find((tensor) => tensor.role === role)
}

/**
 * @param {TensorInfo[]} tensors
 * @param {Role} role
 * @returns {TensorInfo}
 * @throws {Error} where there is none
 */
export function withRole(tensors, role) {
  const found = findRole(tensors, role)
  if (!found) {
    throw new Error(`manifest.json has no tensor of the role ${role}; deploy the model again`)
  }
  return found
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
 * The output whose masks are used: logits of low resolution where a client has masks of the image's
 * size beside them.
 *
 * @param {Manifest} manifest
 * @returns {TensorInfo}
 */
export function maskOutput({ decoder: { outputs } }) {
  return findRole(outputs, 'low_res_masks') ?? withRole(outputs, 'masks')
}
