"""Proves the graphs in a real browser, before anything is deployed.

A headless Chromium loads a model's files from the loopback server as its client does, and runs them
on a non-square image; its outputs are compared with onnxruntime's. A decoder without an encoder
gets PyTorch's embedding of such an image from the server. The graphs always run on WASM; the
decoder also runs on WebGPU where the browser has an adapter and the client uses it. A variant's
best-scored mask is also compared with PyTorch's best-scored mask, and the page's tracker with ours.
See docs/browser.md.
Target: ``browser.json``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.building import code
from tasks.building.stage import Stage, Workspace
from tasks.clients.contract import MaskChoice, Precision, PromptChoice
from tasks.config.models import FP32, Target, Variant
from tasks.config.schema import Configuration, ConfigurationError
from tasks.proof.failures import sentences
from tasks.proof.judgement import products_on_cpu
from tasks.proof.reports import Proof
from tasks.running.child import PROJECT
from tasks.system.errors import StageError
from tasks.system.versions import versions
from tasks.web import browsers, packages
from tasks.web.browsers import Browser

if TYPE_CHECKING:
    from doit.task import Task
    from playwright.sync_api import Browser as PlaywrightBrowser

    from tasks.inference.reference_file import Reference
    from tasks.inference.scripts import Answers, Script
    from tasks.inference.sessions import PromptedImage
    from tasks.web.chromium import ServedModel
    from tasks.web.image_page import ImageRun

PACKAGES = ("onnxruntime", "onnx", "numpy", "pillow", "playwright")
INSTALLED = packages.INSTALLED.relative_to(PROJECT).as_posix()


def check_required(config: Configuration, browser: Browser) -> None:
    """Refuse a configuration that requires a browser's proof on a machine without a browser."""
    required = [target.name for target in config.targets if target.browser is True]
    if required and browser.missing:
        raise ConfigurationError(
            f"{config.path} requires a browser's proof ([browser] enabled, or `browser` of "
            f'{", ".join(required)}), but {browser.missing}. Or set it to "auto" or false.'
        )


def declare(target: Target, browser: Browser, variant: Variant = FP32) -> Stage:
    """The stage that proves a model, or one of its variants, in a browser."""
    proof, source = Proof("browser", target, variant), target.source
    reads: list[str | Path] = [
        *target.graph_files(variant).values(),
        *code.javascript(f"web/page/{target.client.page}"),
    ]
    if not (target.client.encodes or variant.is_smaller):
        reads.append(target.embedding)
    if source.video:
        page = code.javascript("web/page/proof/check-tracking.html")
        reads += [source.tracking_reference, *page]
    if variant.is_smaller:
        reads += [source.reference, *map(Path, source.image_data)]
    return Stage(
        proof.subtask,
        prove_in_browser,
        [target, browser, variant],
        reads=reads,
        writes=[proof.path],
        shared="proof",
        inputs={"packages of npm": browser.packages, **proof.inputs, **versions(*PACKAGES)},
        browser=lambda: browsers.identity(browser.executable),
        also_runs=[
            *([source.images] if variant.is_smaller else []),
            target.client.documents_source,
        ],
        after=["packages", f"verify:{target.name}"],
        up_to_date=[_ran_where_wanted],
        carries=[INSTALLED],
        options=[
            {
                "name": "webgpu_encoder",
                "long": "webgpu-encoder",
                "type": bool,
                "default": False,
                "help": "run the encoder on WebGPU too where it is emulated (minutes)",
            }
        ],
    )


def _ran_where_wanted(task: Task, values: Mapping[str, Any]) -> bool:
    """False when the last run had no browser, or skipped the encoder on WebGPU that is wanted."""
    wanted = bool((task.options or {}).get("webgpu_encoder"))
    on_webgpu = values.get("providers", {}).get("webgpu", ())
    return "unavailable" not in values and (not wanted or "encoder" in on_webgpu)


def prove_in_browser(
    target: Target, browser: Browser, variant: Variant, work: Workspace, webgpu_encoder: bool
) -> dict[str, Any]:
    """Prove in a child process, judge, and write the report, whether the proof passes or fails.

    If a smaller variant fails on a provider, the stage notes that and the build goes on.

    :raises StageError: when a file in single precision does not load or run, or its outputs differ.
    """
    proof, source = Proof("browser", target, variant), target.source
    if browser.missing:
        raise StageError(f"Cannot prove {target.name} in a browser: {browser.missing}.")
    if not packages.are_installed():
        missing = "onnxruntime-web is not installed, and npm could not install it"
        if target.browser != "auto":
            raise StageError(f"Cannot prove {target.name} in a browser: {missing}.")
        figures = {"unavailable": missing, "files": {}, "against": {}, "providers": {}}
        proof.write(figures, [])
        return {"summary": f"NOT PROVEN: {missing}", "unavailable": missing}
    request = BrowserRequest(
        graphs={name: str(path) for name, path in target.graph_files(variant).items()},
        names=target.file_names(variant),
        client=target.client.key,
        masks=target.masks,
        prompts=target.prompts,
        precision=variant.precision,
        reference=str(source.reference) if variant.is_smaller else None,
        embedding=None if target.client.encodes else str(target.embedding),
        tracking=str(source.tracking_reference) if source.video else None,
        draw=source.images if variant.is_smaller else None,
        scratch=str(work.scratch),
        executable=browser.executable,
        webgpu=target.webgpu or (webgpu_encoder and not target.client.wasm_alone),
        webgpu_encoder=webgpu_encoder,
    )
    figures = work.run("tasks.browser:prove", request)
    memory = {"peak_memory": figures.pop("peak_memory")}
    failures = proof.conclude(figures)
    if failures and not variant.is_smaller:
        problem = f"does not work in {figures.get('browser', 'the browser')}"
        raise proof.error(problem, failures, work.log)
    if failures:
        note = f"{target.name}'s {variant.name} does not work everywhere: {sentences(failures)}"
        return {"summary": f"REFUSED: {failures[0]}", "note": note, **memory}
    return {
        "summary": summary(figures, times=variant == FP32),
        "providers": parts(figures),
        **memory,
    }


def parts(report: Mapping[str, Any]) -> dict[str, list[str]]:
    """The parts that ran (encoder, decoder), by provider."""
    return {
        provider: [part for part in ("encoder", "decoder") if "run_ms" in figures.get(part, {})]
        for provider, figures in report["providers"].items()
    }


def summary(report: Mapping[str, Any], times: bool) -> str:
    """The browser's figures on one line, for people.

    :param times: include the times; variants run separately, so their times do not compare.
    """
    from statistics import median

    texts = [report["browser"]]
    for provider, ran in parts(report).items():
        figures = report["providers"][provider]
        if "unavailable" in figures:
            texts.append(f"{provider} not available")
            continue
        name = f"WASM ({report['threads']} threads)"
        if provider == "webgpu":
            adapter = figures["adapter"]
            name = f"WebGPU ({'software' if adapter['software'] else adapter['name']})"
        what = " and ".join(ran)
        if times:
            what = ", ".join(f"{part} {_seconds(median(figures[part]['run_ms']))}" for part in ran)
            sessions = " + ".join(_seconds(figures[part]["create_ms"]) for part in ran)
            what += f", sessions {sessions}"
        left = products_on_cpu(figures.get("placement", {}))
        on_cpu = f", {left} matrix products on the CPU" if left else ""
        texts.append(f"{name} {what}{on_cpu}")
    ious = [each["mask_iou"] for each in report["providers"].values() if "mask_iou" in each]
    texts.append(f"IoU with onnxruntime's masks {min(ious):.5g}")
    for each in report["providers"].values():
        tracked = each.get("tracking", {})
        if "mask_iou" in tracked:
            frames = [frame["milliseconds"] for frame in tracked["frames"]]
            time = f", {_seconds(median(frames))} a frame" if times else ""
            texts.append(f"IoU of tracked masks {tracked['mask_iou']['worst']:.5g}{time}")
    memory = report["memory"].get("renderer")
    if memory:
        texts.append(f"peak {memory / 2**30:.1f} GiB")
    return "; ".join(texts)


def _seconds(milliseconds: float) -> str:
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"


@dataclass(frozen=True)
class BrowserRequest:
    """The graphs' files, by graph name, and how a browser runs them.

    ``names`` are the client's names for the files, ``scratch`` an empty folder. ``executable`` None
    means Playwright's own browser. ``webgpu``: also run the decoder on WebGPU, and the encoder when
    the adapter is hardware or with ``webgpu_encoder``; on hardware also track there, otherwise only
    note which provider runs each node. ``tensors_from``: see `ServedModel`.

    A smaller variant has a ``reference``: PyTorch's answers about the images that ``draw`` draws.
    For a decoder without an encoder, the reference also has the embedding of the first image; in
    single precision the embedding comes from the file ``embedding``. ``tracking`` is PyTorch's
    answers to scripts, which also hold the constants that a tracker needs.
    """

    graphs: Mapping[str, str]
    names: Mapping[str, str]
    client: str
    masks: MaskChoice
    prompts: PromptChoice
    precision: Precision
    scratch: str
    executable: str | None = None
    webgpu: bool = True
    webgpu_encoder: bool = False
    reference: str | None = None
    draw: str | None = None
    embedding: str | None = None
    tracking: str | None = None
    tensors_from: Mapping[str, str] | None = None
    decoder_runs: int = 5


def prove(request: BrowserRequest) -> dict[str, Any]:
    """Run a model's graphs in the browser and compare with onnxruntime (runs in a child process).

    By default this runs ``verify``'s prompts and compares every mask. With a reference it runs the
    prompts about the reference's first image, and also compares each prompt's best-scored mask with
    PyTorch's.

    :returns: the report, times in milliseconds, memory in bytes. If a provider fails, its figures
        end there, with its error message.
    """
    from tasks.clients.registry import client_by_key
    from tasks.inference import scripts
    from tasks.inference.reference_file import read_reference
    from tasks.proof.binding import unchanged
    from tasks.web import chromium, comparison

    references = {"reference": request.reference, "tracking_reference": request.tracking}
    subjects = {name: path for name, path in references.items() if path is not None}
    judged = {Path(path).name: path for path in request.graphs.values()}
    with unchanged(judged) as files, unchanged(subjects) as against:
        model = chromium.ServedModel(
            client_by_key(request.client),
            request.masks,
            request.prompts,
            request.precision,
            request.graphs,
            request.names,
            video=scripts.read_answers(request.tracking)[0].constants if request.tracking else None,
            tensors_from=request.tensors_from,
        )
        script = scripts.short(model.video.image_size) if model.video else None
        stored = request.reference and read_reference(request.reference, request.masks)
        prompted = prompted_image(request, model, stored or None)
        run, tracked = run_in_browser(request, model, prompted, script)
        # onnxruntime runs after the browser has ended and its memory is free.
        comparison.compare(run, stored.images[0] if stored else None)
        if script is not None:
            comparison.compare_tracking(run.report, tracked, script, model)
    return {
        "files": files,
        "against": {**(stored.against if stored else {}), **against},
        **run.report,
        "measured_by": browsers.identity(request.executable),
    }


def prompted_image(
    request: BrowserRequest, model: ServedModel, stored: Reference | None
) -> PromptedImage:
    """An image with the prompts that the client can send.

    If PyTorch already encoded the image, only its size matters.
    """
    from tasks.inference import embedding, prompts, truth
    from tasks.inference.sessions import PromptedImage

    client = model.client
    if request.draw is not None:
        assert stored is not None
        (drawn,) = truth.draw_images(truth.load(request.draw), stored.dimensions.image_size, 1)
        about = prompts.answerable(truth.prompts_about(drawn), client)
        return PromptedImage(drawn.image, about, {}, (), stored.images[0].features)
    if request.embedding is not None:
        features, size = embedding.read(request.embedding)
        about = prompts.answerable(prompts.PROMPTS, client)
        image = prompts.natural_image(*size)
        return PromptedImage(image, about, {}, (), {"image_embed": features})
    # Not square, so that code that scales x by the height fails.
    image = prompts.natural_image(model.size * 3 // 4, model.size)
    about = prompts.answerable(prompts.PROMPTS, model.client)
    at_once = prompts.sent_at_once(model.client) if request.prompts == "many" else ()
    return PromptedImage(image, about, {}, at_once)


def run_in_browser(
    request: BrowserRequest, model: ServedModel, prompted: PromptedImage, script: Script | None
) -> tuple[ImageRun, dict[str, Answers]]:
    """Run the graphs, and the script with the page's tracker; its answers come by provider."""
    from tasks.web import chromium
    from tasks.web.image_page import ImageRun

    frames = list(script.frames) if script else []
    embedding = (prompted.features or {}).get("image_embed")
    with (
        chromium.served(model, prompted.image, request.scratch, frames, embedding) as site,
        chromium.launched(request.executable, request.webgpu) as browser,
    ):
        run: ImageRun | None = None
        try:
            with chromium.blank_page(browser) as page:
                run = ImageRun(page, site, model, prompted, chromium.threads_here(model.client))
                run.open()
                run.wasm(1, request.decoder_runs)
                if request.webgpu:
                    run.webgpu(request.webgpu_encoder, os.path.getsize(request.graphs["encoder"]))
        except chromium.Refused as refusal:
            if run is None:
                raise StageError(str(refusal)) from refusal
            run.refuse(str(refusal))
        return run, track_in_page(browser, run, script) if script else {}


def track_in_page(browser: PlaywrightBrowser, run: ImageRun, script: Script) -> dict[str, Answers]:
    """The answers of the page's tracker, by provider; figures go to the run's report.

    Providers that failed are left out. Nothing is tracked on an emulated WebGPU: there the report
    only gets the provider of each node.
    """
    from tasks.web import chromium
    from tasks.web.tracking_page import TrackingRun

    answers: dict[str, Answers] = {}
    tracking: TrackingRun | None = None
    works = {
        provider
        for provider, figures in run.report["providers"].items()
        if not {"refused", "unavailable"} & figures.keys()
    }
    if "wasm" not in works:
        return answers
    try:
        with chromium.blank_page(browser) as page:
            tracking = TrackingRun(page, run.site, run.model, run.threads, run.report)
            tracking.open()
            answers["wasm"] = tracking.run_script("wasm", script)
            if "webgpu" in works:
                if not tracking.adapter["software"]:
                    answers["webgpu"] = tracking.run_script("webgpu", script)
                tracking.place()
    except chromium.Refused as refusal:
        (tracking or run).refuse(str(refusal))
    return answers
