"""sam2's own answers in PyTorch, which the graphs are measured against. Needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tasks.inference.prompts import Prompt
from tasks.inference.sessions import Predictions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sam2.modeling.sam2_base import SAM2Base
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    from tasks.config.schema import MaskChoice


def predictor_of(model: SAM2Base) -> SAM2ImagePredictor:
    """sam2's own predictor; its sizes of the feature maps are those of 1024 pixels, unless told."""
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    predictor = SAM2ImagePredictor(model)
    grid = model.image_size // model.backbone_stride
    predictor._bb_feat_sizes = [(grid * scale, grid * scale) for scale in (4, 2, 1)]
    return predictor


def predict(
    predictor: SAM2ImagePredictor,
    image: NDArray[np.uint8],
    prompts: Sequence[Prompt],
    choice: MaskChoice,
) -> Predictions:
    """sam2's answers about an image (S, S, 3), made to return the masks that the graph does."""
    predictor.set_image(image)
    first, second = predictor._features["high_res_feats"]
    found = Predictions(
        {
            "high_res_feats_0": first.numpy(),
            "high_res_feats_1": second.numpy(),
            "image_embed": predictor._features["image_embed"].numpy(),
        }
    )
    for prompt in prompts:
        if prompt.refines_mask:
            found.mask_inputs[prompt.name] = found.best_mask(prompts[0].name)
        masks, scores = _answer(predictor, prompt, image.shape[0], found, choice)
        found.masks[prompt.name], found.scores[prompt.name] = masks, scores
    return found


def _answer(
    predictor: SAM2ImagePredictor,
    prompt: Prompt,
    size: int,
    found: Predictions,
    choice: MaskChoice,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Low-resolution mask logits (K, M, M) and scores (K,)."""
    import numpy as np

    _, scores, masks = predictor.predict(
        point_coords=np.array(prompt.points) * size if prompt.points else None,
        point_labels=np.array(prompt.labels) if prompt.points else None,
        box=np.array(prompt.box) * size if prompt.box else None,
        mask_input=found.mask_inputs.get(prompt.name),
        multimask_output=choice != "single",
        return_logits=True,
    )
    if choice == "best":
        best = scores.argmax()
        masks, scores = masks[best : best + 1], scores[best : best + 1]
    return masks, scores
