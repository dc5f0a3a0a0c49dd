"""Drives the page's own tracker, ``web/page/shared/tracker.js``, with the methods of `Tracker`."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tasks.clients.runtime import WebProvider
from tasks.config.models import TRACKING_GRAPHS
from tasks.inference.prompts import Prompt
from tasks.inference.scripts import Answers, Script, run_script
from tasks.inference.tracker import Result
from tasks.web.chromium import Steps

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.clients.contract import TrackingConstants


class TrackingRun(Steps):
    """The tracking part of a proof: follows objects through the server's frames, a `ScriptRunner`.

    The report has each frame's milliseconds, at ``tracking`` of the provider.
    """

    name = "proof/check-tracking.html"
    parts = ("encoder", *TRACKING_GRAPHS)

    @property
    def constants(self) -> TrackingConstants:
        """The model's tracking constants."""
        assert self.model.video is not None
        return self.model.video

    def run_script(self, provider: WebProvider, script: Script) -> Answers:
        """Create the sessions on a provider and run a script; a `Refused` names what failed."""
        self._start(provider)
        for part in self.parts:
            self._create(part)
        self._graph = None
        frames = [f"/image/frame-{number}.png" for number in range(len(script.frames))]
        self._step(f"tracking on {provider}: begin", "begin", provider=provider, frames=frames)
        self._figures()["frames"] = []
        self._height, self._width = script.frames.shape[1:3]
        return dict(run_script(self, script))

    def place(self) -> None:
        """Note which nodes of the tracking graphs WebGPU runs; a `Refused` if it fails."""
        self._start("webgpu")
        for part in TRACKING_GRAPHS:
            self._place(part)

    def prompt(self, frame: int, number: int, prompt: Prompt) -> Result:
        """As `Tracker.prompt`."""
        scaled = prompt.in_pixels(self._width, self._height)
        drawn = b"" if prompt.mask is None else prompt.mask.astype("uint8").tobytes()
        answer = self._step(
            f"tracking on {self._provider}: prompt for object {number} on frame {frame}",
            "prompt",
            frame=frame,
            object=number,
            prompt={"points": scaled.points, "labels": scaled.labels, "box": scaled.box},
            mask=base64.b64encode(drawn).decode() or None,
        )
        return self._result(answer)

    def track(
        self, start: int | None = None, reverse: bool = False
    ) -> Iterator[tuple[int, dict[int, Result]]]:
        """As `Tracker.track`."""
        what = f"tracking on {self._provider}: "
        self._step(f"{what}follow", "follow", **{"from": start}, reverse=reverse)
        while True:
            step = self._step(f"{what}next frame", "next")
            if step["frame"] is None:
                return
            objects = {each["object"]: self._result(each) for each in step["objects"]}
            times = {name: step[name] for name in ("frame", "milliseconds")}
            self._figures()["frames"].append({**times, "objects": len(objects)})
            yield step["frame"], objects

    def _figures(self) -> dict[str, Any]:
        figures: dict[str, Any] = self._of_provider().setdefault("tracking", {})
        return figures

    def _result(self, answer: Mapping[str, Any]) -> Result:
        values = {name: self.site.array(each) for name, each in answer["values"].items()}
        return Result(values["low_res_masks"], answer["score"], values["pointer"], answer["iou"])
