"""The page's own tracker, ``web/page/tracker.js``, driven from here as `Tracker` is."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tasks.config.models import TRACKING_GRAPHS
from tasks.inference.clips import Answers, Clip, play
from tasks.inference.tracker import Prompt, Result
from tasks.web.chromium import Steps, unpacked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.clients.contract import TrackingConstants

# What answers, and where: the answers of a page's tracker on each provider.
Tracked = dict[str, Answers]


class TrackingRun(Steps):
    """The tracking part: objects are followed through the frames that the server has.

    A `tasks.inference.clips.Follower`. Milliseconds of every frame are in the report, at
    ``tracking`` of the provider.
    """

    name = "check-tracking.html"
    parts = ("encoder", *TRACKING_GRAPHS)

    @property
    def constants(self) -> TrackingConstants:
        """Of the model."""
        assert self.model.video is not None
        return self.model.video

    def follow(self, provider: str, clip: Clip) -> Answers:
        """Create the sessions on a provider and do what is done with a clip.

        :raises Refused: naming the graph, or the step, and the provider.
        """
        self._start(provider)
        for part in self.parts:
            self._create(part)
        self._graph = None
        frames = [f"/image/frame-{number}.png" for number in range(len(clip.frames))]
        self._step(f"tracking on {provider}: begin", "begin", provider=provider, frames=frames)
        self._figures()["frames"] = []
        return dict(play(self, clip))

    def place(self) -> None:
        """Note where WebGPU has the nodes of the graphs that track.

        :raises Refused: when it does not start.
        """
        self._start("webgpu")
        for part in TRACKING_GRAPHS:
            self._place(part)

    def prompt(self, frame: int, number: int, prompt: Prompt) -> Result:
        """As `Tracker.prompt`."""
        mask = None
        if prompt.mask is not None:
            mask = base64.b64encode(prompt.mask.astype("uint8").tobytes()).decode()
        found = self._step(
            f"tracking on {self._provider}: prompt for object {number} on frame {frame}",
            "prompt",
            frame=frame,
            object=number,
            prompt={"points": prompt.points, "labels": prompt.labels, "box": prompt.box},
            mask=mask,
        )
        return _result(found)

    def track(
        self, start: int | None = None, reverse: bool = False
    ) -> Iterator[tuple[int, dict[int, Result]]]:
        """As `Tracker.track`."""
        what = f"tracking on {self._provider}: "
        self._step(f"{what}follow", "follow", **{"from": start}, reverse=reverse)
        while True:
            found = self._step(f"{what}next frame", "next")
            if found["frame"] is None:
                return
            objects = {each["object"]: _result(each) for each in found["objects"]}
            self._figures()["frames"].append(
                {
                    "frame": found["frame"],
                    "objects": len(objects),
                    "milliseconds": found["milliseconds"],
                }
            )
            yield found["frame"], objects

    def _figures(self) -> dict[str, Any]:
        figures: dict[str, Any] = self._of_provider().setdefault("tracking", {})
        return figures


def _result(found: Mapping[str, Any]) -> Result:
    values = {name: unpacked(each) for name, each in found["values"].items()}
    return Result(values["low_res_masks"], found["score"], values["pointer"], found["iou"])
