"""Runs a page on one execution path, with prompts about two images and a tracker's script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING, Any

from tasks.clients.runtime import RuntimePath
from tasks.inference import prompts
from tasks.inference.metrics import least_iou
from tasks.inference.sessions import Predictions, PromptedImage
from tasks.web import comparison
from tasks.web.chromium import Driver, ServedModel, Site, threads_here
from tasks.web.image_page import PLACED_ENCODER, ImageRun
from tasks.web.tracking_page import TrackingRun

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tasks.inference.scripts import Answers, Script

RUNS = 3
# With a larger input, a software adapter takes minutes for the encoder and 20 s for the decoder.
LARGEST_EMULATED = 512


class PathRun(ImageRun):
    """Runs a page on one path; adds the results of each finished part to ``figures``."""

    def __init__(
        self,
        driver: Driver,
        site: Site,
        model: ServedModel,
        prompted: PromptedImage,
        path: RuntimePath,
        figures: dict[str, Any],
    ) -> None:
        # Where WebGPU is emulated, a large encoder runs on WASM.
        beside = replace(path, provider="wasm", layout=None)
        super().__init__(driver, site, model, prompted, 1, [beside, path])
        self.path = path
        self.figures = figures

    def run(self, second: NDArray[np.uint8], encoder_size: int, webgpu_encoder: bool) -> bool:
        """Run prompts about the image and about a ``second`` one; returns whether that is fast.

        One tensor layout failed with the first prompt of a session and with a box, so each kind of
        prompt comes first in a session of its own.

        :param encoder_size: the size of the encoder's file, in bytes.
        """
        self.open()
        if self.environment["isolated"] and self.environment["shared"]:
            self.threads = threads_here(self.model.client)
        self.figures["threads"] = self.threads
        if self.path.provider == "wasm":
            self.wasm(1, RUNS)
            self._note(self.model.client.graphs)
            return True
        software = self.adapter["software"]
        self.figures["software"] = software
        is_fast = not software or self.model.size <= LARGEST_EMULATED
        encodes = self.model.client.encodes
        encode_here = encodes and (is_fast or webgpu_encoder)
        if encodes and not encode_here:
            self._start("wasm")
            self._create("encoder")
            self._encode(1)
        self._start("webgpu")
        self.report["providers"]["webgpu"]["placement"] = {}
        if not encodes:
            self._take()
        elif encode_here:
            self._create("encoder")
            self._encode(1)
        box_first = [*self._prompts(box=True), *self._prompts(box=False)]
        self._create("decoder")
        self._decode(box_first, 1)
        for part in self.model.client.graphs:
            if part == "decoder" or encode_here or encoder_size <= PLACED_ENCODER:
                self._place(part)
        self._note(("encoder", "decoder") if encode_here else ("decoder",))
        if encode_here and is_fast:
            self._show(second)
            self._decode(self._prompts(box=False), 1)
            self._compare()
            self._create("decoder")
            self._decode(box_first[::-1], 1)
            self._compare()
        return is_fast

    def _prompts(self, box: bool) -> Sequence[prompts.Prompt]:
        """One prompt with only a box, or only points, if the client sends such prompts."""
        some = prompts.answerable(prompts.PROMPTS, self.model.client)
        alone = [each for each in some if not each.refines and bool(each.box) != bool(each.points)]
        return [each for each in alone if bool(each.box) == box][:1]

    def _show(self, image: NDArray[np.uint8]) -> None:
        """Encode another image in the existing session."""
        self.prompted = self.prompted._replace(image=image)
        self.address = "/image/second.png"
        self.predictions[self._provider] = Predictions()
        self._encode(1)

    def _note(self, ran: Sequence[str]) -> None:
        """Add the times and the placement of nodes to the figures, and compare."""
        figures = self._of_provider()
        self.figures["ran"] = tuple(ran)
        self.figures["nodes"] = figures.get("placement", {})
        for part in ran:
            self.figures[f"{part}_ms"] = round(median(figures[part]["run_ms"]), 1)
        self._compare()

    def _compare(self) -> None:
        """Add the lowest IoU of all masks so far with onnxruntime's masks."""
        answers = self.predictions[self._provider]
        expected = comparison.answers_of_onnxruntime(self, answers)
        ious = [least_iou(masks, expected.masks[name]) for name, masks in answers.masks.items()]
        self.figures["mask_iou"] = min([*ious, self.figures.get("mask_iou", 1.0)])


def environment_of(driver: Driver, site: Site, page: str) -> dict[str, Any]:
    """The features of a browser; `Refused` if it does not open the page."""
    driver.open(f"{site.address}/{page}")
    return driver.run({"step": "environment"})


def lacks(environment: Mapping[str, Any], path: RuntimePath) -> str | None:
    """Why a browser cannot take a path; None if it can. Pure."""
    if not environment["simd"]:
        return "the browser has no WebAssembly SIMD"
    if path.provider == "webgpu" and environment["adapter"] is None:
        return "the browser has no WebGPU adapter here"
    if path.build == "jspi" and not environment["jspi"]:
        return "the browser has no JavaScript Promise Integration, which /jspi needs"
    return None


def track(
    driver: Driver,
    site: Site,
    model: ServedModel,
    path: RuntimePath,
    script: Script,
    expected: Answers,
    figures: dict[str, Any],
) -> None:
    """Run a script on a path; adds the lowest IoU with the ``expected`` answers to ``figures``."""
    from tasks.proof.drift import compare_answers

    run = TrackingRun(driver, site, model, figures["threads"], paths=[path])
    run.open()
    answers = run.run_script(path.provider, script)
    figures["tracking_iou"] = compare_answers({script.name: (answers, expected)}).mask_iou.worst
    figures["ran"] = (*figures["ran"], "tracking")
