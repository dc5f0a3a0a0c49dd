"""A checkpoint with its architecture, for the child processes that load it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base
    from sam2.sam2_video_predictor import SAM2VideoPredictor


@dataclass(frozen=True)
class TrainedModel:
    """A checkpoint and the architecture of its weights.

    ``architecture_file`` is read if the architecture is not a named one. ``image_size`` is in
    pixels; None means the architecture's own. ``package`` is the folder of the package that the
    family is compared with, see `reference_package`.
    """

    architecture: str
    checkpoint: str
    architecture_file: str | None = None
    image_size: int | None = None
    package: str | None = None

    def files(self) -> dict[str, str]:
        """The model's files, for `binding.unchanged`."""
        architecture = {"architecture": self.architecture_file} if self.architecture_file else {}
        return {"checkpoint": self.checkpoint, **architecture}

    def load(self) -> SAM2Base:
        """Load the model with `load.load_model`."""
        from tasks.model.load import load_model

        return load_model(self.architecture, self.checkpoint, self.image_size)

    def load_video(self) -> SAM2VideoPredictor:
        """Load the predictor for videos with `load.load_video_model`."""
        from tasks.model.load import load_video_model

        return load_video_model(self.architecture, self.checkpoint, self.image_size)
