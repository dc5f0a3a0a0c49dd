// The tracking constants of the published models, with an input of 8 pixels.

export const published = {
  image_size: 8,
  memories: 7,
  memory_stride: 1,
  max_pointers: 16,
  max_conditioning_frames: -1,
  signed_pointer_times: true,
  pointers_from_past_only: true,
  multimask_points: /** @type {[number, number]} */ ([0, 1]),
  multimask_when_tracking: true,
  corrections_condition: false,
}
