// Draws the masks of one click and of one box with transformers.js, in Node.js:
//
//     npm install @huggingface/transformers
//     node transformers.mjs <deployed folder> <image> <x> <y> <left> <top> <right> <bottom>
//
// Coordinates are pixels of the image.
import { resolve } from 'node:path'
import { AutoProcessor, RawImage, Sam2Model } from '@huggingface/transformers'

const [folder, file, ...numbers] = process.argv.slice(2)
const [x, y, ...box] = numbers.map(Number)
const model = await Sam2Model.from_pretrained(resolve(folder), { dtype: 'fp32' })
const processor = await AutoProcessor.from_pretrained(resolve(folder))
const image = await RawImage.read(file)
const embeddings = await model.get_image_embeddings(await processor(image))

const click = { input_points: [[[x, y]]], input_labels: [[1]] }
for (const [name, prompt] of Object.entries({ click, box: { input_boxes: [[box]] } })) {
  const inputs = await processor(image, prompt)
  const { pred_masks, iou_scores } = await model({ ...embeddings, ...inputs })
  const scores = [...iou_scores.data]
  const best = scores.indexOf(Math.max(...scores))
  const { original_sizes, reshaped_input_sizes } = inputs
  const [masks] = await processor.post_process_masks(
    pred_masks, original_sizes, reshaped_input_sizes,
  )
  const pixels = masks[0][best].data.map((inside) => 255 * inside)
  await new RawImage(pixels, image.width, image.height, 1).save(`${name}.png`)
  console.log(`${name}.png: scores ${scores.map((score) => score.toFixed(3)).join(' ')}`)
}
