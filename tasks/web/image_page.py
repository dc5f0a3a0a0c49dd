"""The page that encodes an image and decodes prompts, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tasks.clients.runtime import RuntimePath, WebProvider
from tasks.inference.preprocessing import Placement
from tasks.inference.sessions import Predictions, PromptedImage
from tasks.web.chromium import Driver, Refused, ServedModel, Site, Steps

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tasks.inference.prompts import Prompt

# On a software adapter the encoder does not run, but a session shows which provider has its nodes.
# A session of a file above this size (in bytes) could exhaust the page's memory.
PLACED_ENCODER = 400 << 20


class ImageRun(Steps):
    """The image part of a proof: encodes the server's image, and decodes prompts about it."""

    def __init__(
        self,
        driver: Driver,
        site: Site,
        model: ServedModel,
        prompted: PromptedImage,
        threads: int,
        paths: Sequence[RuntimePath] = (),
    ) -> None:
        super().__init__(driver, site, model, threads, paths=paths)
        self.prompted = prompted
        self.height, self.width = prompted.image.shape[:2]
        self.predictions: dict[str, Predictions] = {}
        self.image: NDArray[np.float32] | None = None
        self.address = "/image/image.png"

    @property
    def place(self) -> Placement:
        """Where the image lies in the encoder's input."""
        return Placement(self.model.size, self.width, self.height, self.model.client.resize)

    def image_pixels(self) -> NDArray[np.uint8]:
        """The pixels that the page fed the encoder."""
        from tasks.inference.preprocessing import pixels_of

        assert self.image is not None
        return pixels_of(self.image, self.place)

    def wasm(self, encoder_runs: int, decoder_runs: int) -> None:
        """Run everything on WASM; if that fails, a `Refused` names the part and the provider."""
        self._start("wasm")
        self._create("decoder")
        if self.model.client.encodes:
            self._create("encoder")
            self._encode(encoder_runs)
        else:
            self._take()
        self._decode(self.prompted.prompts, decoder_runs)
        for group in self.prompted.at_once:
            self._put(group, 1)

    def webgpu(self, run_encoder: bool, encoder_size: int, runs: int = 1) -> None:
        """Run the decoder on WebGPU, and the encoder too on hardware or with ``run_encoder``.

        If the adapter cannot even run an identity graph, WebGPU is noted as unavailable.

        :param encoder_size: the size of the encoder's file, in bytes.
        """
        if self.adapter is None:
            return
        software = self.adapter["software"]
        try:
            self._start("webgpu")
        except Refused as refusal:
            self.predictions.pop("webgpu", None)
            unavailable = {"adapter": self.adapter, "unavailable": str(refusal)}
            self.report["providers"]["webgpu"] = unavailable
            return
        self.report["providers"]["webgpu"] |= {"adapter": self.adapter, "placement": {}}
        run_encoder = run_encoder or not software
        if run_encoder:
            self._create("encoder")
            self._encode(runs)
        if run_encoder or encoder_size <= PLACED_ENCODER:
            self._place("encoder")
        self._create("decoder")
        # A software adapter takes 20 s for a run of the decoder.
        self._decode(self.prompted.prompts[: 1 if software else None], runs)
        self._place("decoder")

    def refuse(self, reason: str) -> None:
        """Note that the current provider failed, and discard its answers."""
        super().refuse(reason)
        self.predictions.pop(self._provider, None)

    def _start(self, provider: WebProvider) -> None:
        super()._start(provider)
        self.predictions[provider] = Predictions()

    def _encode(self, runs: int) -> None:
        times = []
        for _ in range(runs):
            encoded = self._step_of("encoder", "run", "encode", image=self.address)
            times.append(encoded["milliseconds"])
        features = {role: self.site.array(posted) for role, posted in encoded["values"].items()}
        self.image = features.pop("image")
        self.predictions[self._provider].features.update(features)
        self._figures()["encoder"]["run_ms"] = times

    def _take(self) -> None:
        """Give the page the server's embedding of the image, for a decoder without an encoder."""
        assert self.prompted.features is not None
        embedding = self.prompted.features["image_embed"]
        place = asdict(self.prompted.place(embedding, self.model.client))
        self._step("take an embedding", "take", dims=embedding.shape, **place)

    def _decode(self, prompts: Sequence[Prompt], runs: int) -> None:
        """Run prompts one by one."""
        times: list[float] = []
        for prompt in prompts:
            times += self._put((prompt,), runs, prompt.refines)
        self._figures()["decoder"]["run_ms"] = times

    def _put(
        self, prompts: Sequence[Prompt], runs: int, previous: str | None = None
    ) -> list[float]:
        """Run prompts at once, after a ``previous`` one; returns each run's milliseconds."""
        predictions = self.predictions[self._provider]
        in_pixels = [self._in_pixels(prompt) for prompt in prompts]
        decoded = self._step_of(
            "decoder",
            f"run {', '.join(repr(prompt.name) for prompt in prompts)}",
            "decode",
            name=prompts[0].name,
            prompt=in_pixels[0],
            prompts=in_pixels,
            previous=previous,
            runs=runs,
        )
        masks, scores = (
            self.site.array(decoded["values"][role]) for role in ("masks", "iou_predictions")
        )
        for number, prompt in enumerate(prompts):
            predictions.add(prompt.name, masks[number], scores[number])
        if decoded["mask_input"]:
            predictions.mask_inputs[prompts[0].name] = self.site.array(decoded["mask_input"])[0]
        if previous is not None:
            self._check_refined(prompts[0].name, previous)
        return list(decoded["times"])

    def _check_refined(self, name: str, previous: str) -> None:
        """Check that a prompt refined exactly the best mask of an earlier prompt."""
        import numpy as np

        refined = self.predictions[self._provider].mask_inputs.get(name)
        first = next(iter(self.predictions.values()))  # the page keeps this provider's answers
        best = first.best_mask(previous)
        if refined is None or not np.array_equal(refined, best):
            raise Refused(
                f"prompt {name!r} should refine the best mask of prompt {previous!r}, but the page "
                f"fed {'no mask' if refined is None else 'another mask'}"
            )

    def _in_pixels(self, prompt: Prompt) -> dict[str, Any]:
        """A prompt as preprocessing.js expects it."""
        scaled = prompt.in_pixels(self.width, self.height)
        return {
            "points": [
                {"x": x, "y": y, "foreground": label == 1}
                for (x, y), label in zip(scaled.points, scaled.labels, strict=True)
            ],
            "box": scaled.box,
        }
