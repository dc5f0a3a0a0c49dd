"""`doit paths:<model>`: the deployed graphs on every execution path of this machine.

A path is a browser, a build and version of onnxruntime-web, a provider, and the provider's
preferred layout of tensors. Each path runs in its own browser, started with the page's address; its
answers are compared with onnxruntime's. A feature that a browser lacks is noted as a reason;
different masks are an error. Target: ``paths.json``, a table of `doit report`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.building import code
from tasks.building.stage import Stage, Workspace, describe_peak
from tasks.clients.contract import MaskChoice, Precision, PromptChoice
from tasks.clients.runtime import (
    PINNED,
    Build,
    RuntimePath,
    TensorLayout,
    file_of,
)
from tasks.config.models import FP32, Target
from tasks.proof.paths import PathFigures, describe, disagreements, outcome
from tasks.system.errors import StageError
from tasks.system.files import write_atomically
from tasks.system.versions import versions
from tasks.web import browsers, packages
from tasks.web.browsers import Browser
from tasks.web.programs import BrowserProgram

if TYPE_CHECKING:
    from doit.task import Task

    from tasks.inference.scripts import Answers, Script
    from tasks.web.chromium import ServedModel

PACKAGES = ("onnxruntime", "onnx", "numpy", "pillow")
BUILDS: tuple[Build, ...] = ("default", "webgpu", "jspi", "wasm")
LAYOUTS: tuple[TensorLayout, ...] = ("NHWC", "NCHW")
# The pinned version, the newest version, and the oldest that a client ships.
VERSIONS = (PINNED, "onnxruntime-web-1.30", "onnxruntime-web-1.19")


def declare(target: Target, browser: Browser, programs: tuple[BrowserProgram, ...]) -> Stage:
    """The runs of one model."""
    source, check = target.source, target.source.checks.browser
    reads: list[str | Path] = [
        *target.graph_files(FP32).values(),
        *code.javascript(f"web/page/{target.client.page}"),
    ]
    if not target.client.encodes:
        reads.append(target.embedding)
    if source.video:
        page = code.javascript("web/page/proof/check-tracking.html")
        reads += [source.tracking_reference, *page]
    return Stage(
        target.name,
        run_paths,
        [target, programs],
        reads=reads,
        writes=[target.paths],
        inputs={
            "packages of npm": {**browser.packages, **packages.versions(VERSIONS)},
            "browsers": [program.executable for program in programs],
            "rule": [check.mask_iou, check.step_limit],
            "contract": target.client.as_json(),
            **versions(*PACKAGES),
        },
        browser=lambda: {
            program.executable: browsers.identity(program.executable) for program in programs
        },
        up_to_date=[_ran_what_is_wanted],
        after=["packages", f"verify:{target.name}"],
        on_demand=True,
        runs_here=True,
        options=[
            {
                "name": "webgpu_encoder",
                "long": "webgpu-encoder",
                "type": bool,
                "default": False,
                "help": "run a large encoder on emulated WebGPU too (takes minutes per path)",
            },
            {
                "name": "client_paths",
                "long": "client-paths",
                "type": bool,
                "default": False,
                "help": "run only the paths that the client uses",
            },
        ],
    )


def _ran_what_is_wanted(task: Task, values: Mapping[str, Any]) -> bool:
    """False when the last run left out paths, or the encoder on WebGPU, that are wanted now."""
    options = task.options or {}
    encoder = options.get("webgpu_encoder") and not values.get("webgpu_encoder")
    others = values.get("client_paths") and not options.get("client_paths")
    return not (encoder or others)


def run_paths(
    target: Target,
    programs: tuple[BrowserProgram, ...],
    work: Workspace,
    webgpu_encoder: bool,
    client_paths: bool,
) -> dict[str, Any]:
    """Run in a child process, and write the table also when a path fails.

    :raises StageError: when no browser can run anything, or a path's masks differ.
    """
    source, check = target.source, target.source.checks.browser
    if missing := [name for name in check.executables if not shutil.which(name)]:
        raise StageError(f"Browser not found: {', '.join(missing)}. Correct [browser] executables.")
    if not programs:
        raise StageError("No browser found. Install Chromium, Firefox or MiniBrowser.")
    if not packages.are_installed():
        raise StageError("onnxruntime-web is not installed, and npm failed to install it")
    request = PathsRequest(
        graphs={name: str(path) for name, path in target.graph_files(FP32).items()},
        names=target.file_names(FP32),
        client=target.client.key,
        masks=target.masks,
        prompts=target.prompts,
        precision="fp32",
        programs=programs,
        embedding=None if target.client.encodes else str(target.embedding),
        tracking=str(source.tracking_reference) if source.video else None,
        scratch=str(work.scratch),
        step_limit=check.step_limit,
        webgpu_encoder=webgpu_encoder,
        client_paths=client_paths,
    )
    result = work.run("tasks.commands.paths:measure", request)
    memory = {"peak_memory": result.pop("peak_memory")}
    write_atomically(target.paths, json.dumps(result, indent=2) + "\n")
    paths = [PathFigures(**each) for each in result["paths"]]
    if problems := disagreements(paths, check.mask_iou):
        raise StageError(
            f"{target.name}: masks differ from onnxruntime's:\n"
            + "\n".join(f"- {each}" for each in problems)
            + f"\nTable: {target.paths}. Log: {work.log}"
        )
    ran = [each for each in paths if each.ran]
    ious = [iou for each in ran for iou in (each.mask_iou, each.tracking_iou) if iou is not None]
    lowest = f", lowest IoU {min(ious):.5g}" if ious else ""
    summary = f"{len(ran)} of {len(paths)} paths ran{lowest}{describe_peak(memory)}"
    options = {"webgpu_encoder": webgpu_encoder, "client_paths": client_paths}
    return {"summary": summary, **options, **memory}


@dataclass(frozen=True)
class PathsRequest:
    """The file of each graph, by its name, and the browsers that run them.

    ``names`` are the client's names for the files; ``scratch`` is an empty folder; ``tracking`` has
    the constants of a tracker; ``embedding`` is an image's, for a model with only a decoder.
    """

    graphs: Mapping[str, str]
    names: Mapping[str, str]
    client: str
    masks: MaskChoice
    prompts: PromptChoice
    precision: Precision
    programs: tuple[BrowserProgram, ...]
    scratch: str
    step_limit: float
    webgpu_encoder: bool
    client_paths: bool
    embedding: str | None = None
    tracking: str | None = None


def measure(request: PathsRequest) -> dict[str, Any]:
    """Run every path, one after the other (runs in a child process).

    :returns: ``files`` with their hashes, the ``date`` in UTC, and ``paths``: `PathFigures`.
    """
    from datetime import UTC, datetime

    from tasks.clients.registry import client_by_key
    from tasks.inference import scripts
    from tasks.proof.binding import unchanged
    from tasks.web import chromium

    client = client_by_key(request.client)
    with unchanged({Path(path).name: path for path in request.graphs.values()}) as files:
        model = chromium.ServedModel(
            client,
            request.masks,
            request.prompts,
            request.precision,
            request.graphs,
            request.names,
            video=scripts.read_answers(request.tracking)[0].constants if request.tracking else None,
        )
        tracked = tracked_script(model)
        paths = runtime_paths(client.paths, [] if request.client_paths else installed_builds())
        results = []
        for program in request.programs:
            for path, reason in reachable(paths, environment_of(program, request, model)):
                if reason is None:
                    figures = run_path(program, path, request, model, tracked)
                else:
                    figures = figures_of(program, path, reason=reason)
                results.append(figures)
                print(f"{describe(figures)}: {outcome(figures)}", flush=True)
    return {
        "files": files,
        "date": datetime.now(UTC).date().isoformat(),
        "paths": [asdict(each) for each in results],
    }


def installed_builds() -> list[tuple[str, Build]]:
    """The installed packages of onnxruntime-web, each with its builds."""
    return [
        (package, build)
        for package in VERSIONS
        for build in BUILDS
        if (packages.MODULES / package / "dist" / file_of(build)).is_file()
    ]


def runtime_paths(
    used: Sequence[RuntimePath], builds: Iterable[tuple[str, Build]]
) -> list[RuntimePath]:
    """The paths through some builds, the client's own first; pure.

    A page that loads models with its own package has no other path.
    """
    if not {path.package for path in used} <= set(VERSIONS):
        return list(used)
    # onnxruntime-web prefers NHWC unless a client chooses.
    paths = [replace(path, layout="NHWC") if path.provider == "webgpu" else path for path in used]
    for package, build in builds:
        paths.append(RuntimePath("wasm", build, package))
        if build != "wasm" and any(path.provider == "webgpu" for path in used):
            paths += [RuntimePath("webgpu", build, package, layout) for layout in LAYOUTS]
    return list(dict.fromkeys(paths))


def reachable(
    paths: Iterable[RuntimePath], environment: Mapping[str, Any]
) -> list[tuple[RuntimePath, str | None]]:
    """The paths, each with the reason why a browser cannot run it, if any. Pure.

    Only the first of several paths with the same reason is returned.

    :param environment: the browser's features; an ``error`` when it did not open the page.
    """
    from tasks.web.path_page import lacks

    reasons: set[str] = set()
    rows = []
    for path in paths:
        reason = environment.get("error") or lacks(environment, path)
        if reason not in reasons:
            rows.append((path, reason))
        if reason is not None:
            reasons.add(reason)
    return rows


def environment_of(
    program: BrowserProgram, request: PathsRequest, model: ServedModel
) -> dict[str, Any]:
    """A browser's features, or the ``error`` with which it failed to open the page."""
    from tasks.inference.prompts import natural_image
    from tasks.web import chromium, path_page
    from tasks.web.started_browser import StepExchange, started

    exchange = StepExchange()
    profile = Path(request.scratch) / "profile"
    try:
        with (
            chromium.served(
                model, natural_image(16), request.scratch, steps=exchange.answer
            ) as site,
            started(program, profile, exchange, request.step_limit) as driver,
        ):
            return path_page.environment_of(driver, site, model.client.page)
    except chromium.Refused as refusal:
        return {"error": str(refusal)}


def figures_of(program: BrowserProgram, path: RuntimePath, **figures: Any) -> PathFigures:
    """The figures of a path in a browser."""
    return PathFigures(
        browser=name_of(program),
        build=path.build,
        version=packages.version_of(path.package),
        provider=path.provider,
        layout=path.layout,
        **figures,
    )


def name_of(program: BrowserProgram) -> str:
    """A browser's name and version, without the place of build that Debian's Chromium adds."""
    version = browsers.identity(program.executable)["browser"]
    return version.partition(" built on ")[0] or program.name


def run_path(
    program: BrowserProgram,
    path: RuntimePath,
    request: PathsRequest,
    model: ServedModel,
    tracked: TrackedScript | None,
) -> PathFigures:
    """Run one path: images and prompts, and a script if the model tracks."""
    from tasks.inference import embedding, prompts
    from tasks.inference.sessions import PromptedImage
    from tasks.web import chromium, path_page
    from tasks.web.started_browser import StepExchange, started

    if request.embedding is None:
        features, height, width = None, model.size * 3 // 4, model.size
    else:
        features, (height, width) = embedding.read(request.embedding)
    image, second = (prompts.natural_image(height, width, seed) for seed in (0, 1))
    about = prompts.answerable(prompts.PROMPTS, model.client)
    prompted = PromptedImage(
        image, about, {}, (), None if features is None else {"image_embed": features}
    )
    encoder_size = os.path.getsize(request.graphs["encoder"]) if model.client.encodes else 0
    exchange = StepExchange()
    frames = list(tracked.script.frames) if tracked else []
    profile = Path(request.scratch) / "profile"
    figures: dict[str, Any] = {}
    with chromium.served(
        model, image, request.scratch, frames, features, second, exchange.answer
    ) as site:
        try:
            with started(program, profile, exchange, request.step_limit) as driver:
                run = path_page.PathRun(driver, site, model, prompted, path, figures)
                is_fast = run.run(second, encoder_size, request.webgpu_encoder)
            if tracked is not None and is_fast:
                with started(program, profile, exchange, request.step_limit) as driver:
                    path_page.track(
                        driver, site, model, path, tracked.script, tracked.expected, figures
                    )
        except chromium.Refused as refusal:
            figures["reason"] = str(refusal)
    return figures_of(program, path, **figures)


class TrackedScript(NamedTuple):
    """A script, and the answers of this project's tracker with onnxruntime."""

    script: Script
    expected: Answers


def tracked_script(model: ServedModel) -> TrackedScript | None:
    """The script for a model that tracks; None for others."""
    from tasks.inference import scripts
    from tasks.inference.sessions import run_by_name
    from tasks.inference.tracker import Tracker

    if model.video is None:
        return None
    script = scripts.short(model.video.image_size)
    run = run_by_name(model.graphs, {"encoder": model.client.encoder})
    tracker = Tracker(run, model.video, list(script.frames))
    return TrackedScript(script, dict(scripts.run_script(tracker, script)))
