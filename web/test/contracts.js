// The decoders' contracts, as manifest.json has them, with small sizes.

/** @typedef {import('../page/shared/contract.js').Manifest} Manifest */
/** @typedef {import('../page/shared/contract.js').Role} Role */
/** @typedef {import('../page/shared/contract.js').TensorInfo} TensorInfo */

/**
 * @param {string} name
 * @param {(number | string)[]} shape
 * @param {Role} [role] the name, unless given
 * @param {string} [dtype]
 * @returns {TensorInfo}
 */
function tensor(name, shape, role = /** @type {Role} */ (name), dtype = 'float32') {
  return { name, role, dtype, shape }
}

/**
 * @param {TensorInfo[]} inputs
 * @param {TensorInfo[]} outputs
 * @param {Partial<Manifest['prompts']>} [prompts]
 * @returns {Manifest}
 */
function manifest(inputs, outputs, prompts) {
  return {
    files: {},
    encoder: {
      file: 'encoder.onnx',
      inputs: [tensor('pixels', [1, 3, 8, 8], 'image')],
      outputs: [tensor('image_embed', [1, 4, 2, 2])],
    },
    decoder: { file: 'decoder.onnx', inputs, outputs },
    preprocessing: {
      mean: [0, 0, 0],
      std: [1, 1, 1],
      resize: 'stretch',
      point_labels: {
        padding: -1, background: 0, foreground: 1, box_top_left: 2, box_bottom_right: 3,
      },
    },
    prompts: { at_once: 'many', padding_point: false, mask_threshold: 0, ...prompts },
    masks: { choice: 'multi' },
  }
}

const masks = [
  tensor('masks', ['num_prompts', 3, 2, 2]),
  tensor('iou_predictions', ['num_prompts', 3]),
]

/** samexporter's interface. */
export const points = manifest(
  [
    tensor('image_embed', [1, 4, 2, 2]),
    tensor('point_coords', ['num_prompts', 'num_points', 2]),
    tensor('point_labels', ['num_prompts', 'num_points']),
    tensor('mask_input', ['num_masks', 1, 2, 2]),
    tensor('has_mask_input', [1]),
  ],
  masks,
)

/** The same for one prompt at once, with a padding point, as NimbusImage feeds it. */
export const padded = manifest(
  [
    tensor('image_embed', [1, 4, 2, 2]),
    tensor('point_coords', [1, 'num_points', 2]),
    tensor('point_labels', [1, 'num_points']),
    tensor('mask_input', [1, 1, 2, 2]),
    tensor('has_mask_input', [1]),
  ],
  [tensor('masks', [1, 3, 2, 2]), tensor('iou_predictions', [1, 3])],
  { at_once: 'one', padding_point: true },
)

/** transformers.js's interface: points, boxes, or both. */
export const pointsAndBoxes = manifest(
  [
    tensor('image_embeddings.2', [1, 4, 2, 2], 'image_embed'),
    tensor('input_points', [1, 'num_prompts', 'num_points', 2], 'point_coords'),
    tensor('input_labels', [1, 'num_prompts', 'num_points'], 'point_labels', 'int64'),
    tensor('input_boxes', [1, 'num_boxes', 4], 'boxes'),
  ],
  [
    tensor('iou_scores', [1, 'num_prompts', 3], 'iou_predictions'),
    tensor('pred_masks', [1, 'num_prompts', 3, 2, 2], 'masks'),
    tensor('object_score_logits', [1, 'num_prompts', 1]),
  ],
)

/** osam's interface: masks of the image's size, too. */
export const imageSize = manifest(
  [
    tensor('image_embeddings', [1, 4, 2, 2], 'image_embed'),
    tensor('point_coords', [1, 'num_points', 2]),
    tensor('point_labels', [1, 'num_points']),
    tensor('mask_input', [1, 1, 2, 2]),
    tensor('has_mask_input', [1]),
    tensor('orig_im_size', [2], 'orig_im_size', 'int64'),
  ],
  [
    tensor('masks', [1, 4, 'height', 'width']),
    tensor('iou_predictions', [1, 4]),
    tensor('low_res_masks', [1, 4, 2, 2]),
  ],
  { at_once: 'one' },
)
