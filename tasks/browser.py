"""The graphs proven in a real browser, before anything is deployed.

A headless Chromium loads a model's files from the loopback server as its client does, runs an image
that is not square and the prompts of ``verify``, and what it answers is compared with onnxruntime's
own answers. On WASM always; the decoder on WebGPU where the browser gives an adapter. A variant's
best-scored mask is also compared with the one that PyTorch scores best. With
`video = true` the page's tracker follows objects through eight frames, and is compared with ours.
Target: ``browser.json``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from tasks.building import code
from tasks.building.stage import Stage, Workspace
from tasks.config.checks import Precision
from tasks.config.models import FP32, Target, Variant
from tasks.config.schema import Configuration, ConfigurationError
from tasks.proof.failures import sentences
from tasks.proof.judgement import products_on_cpu
from tasks.proof.reports import Proof
from tasks.running.child import PROJECT
from tasks.system.errors import StageError
from tasks.system.versions import versions
from tasks.web import chromium, packages
from tasks.web.chromium import Browser

if TYPE_CHECKING:
    from doit.task import Task
    from playwright.sync_api import Browser as PlaywrightBrowser

    from tasks.clients.client import Client
    from tasks.clients.contract import MaskChoice, PromptChoice
    from tasks.inference.clips import Answers, Clip
    from tasks.inference.sessions import PromptedImage
    from tasks.web.chromium import Run, ServedModel

PACKAGES = ("onnxruntime", "onnx", "numpy", "pillow", "playwright")
LEVEL = 1 / 255  # of a sample: a browser may round down what it scales
INSTALLED = packages.INSTALLED.relative_to(PROJECT).as_posix()


def check_required(config: Configuration, browser: Browser) -> None:
    """Refuse a configuration that asks for a browser on a machine without one.

    :raises ConfigurationError: saying what is missing and how to install it.
    """
    required = [target.name for target in config.targets if target.browser is True]
    if required and browser.missing:
        raise ConfigurationError(
            f"{config.path} asks for a browser's proof ([browser] enabled, or `browser` of "
            f'{", ".join(required)}), but {browser.missing}. Or set it to "auto" or false.'
        )


def declare(target: Target, browser: Browser, variant: Variant = FP32) -> Stage:
    """The proof of a model, or of one of its variants, in a browser."""
    proof, source = Proof("browser", target, variant), target.source
    reads: list[str | Path] = [
        *target.graph_files(variant).values(),
        *code.javascript(f"web/page/{target.client.page}"),
    ]
    if source.video:
        reads += [
            source.tracking_reference,
            *code.javascript("web/page/check-tracking.html"),
        ]
    if variant.is_smaller:
        reads += [source.reference, *map(Path, source.image_data)]
    return Stage(
        proof.subtask,
        prove_in_browser,
        [target, browser, variant],
        reads=reads,
        writes=[proof.path],
        shared="proof",
        inputs={
            "packages of npm": browser.packages,
            **proof.inputs,
            **versions(*PACKAGES),
        },
        browser=lambda: chromium.identity(browser.executable),
        also_runs=[
            *([source.images] if variant.is_smaller else []),
            target.client.documents_source,
        ],
        after=["packages", f"verify:{target.name}"],
        up_to_date=[_ran, _has_what_is_wanted],
        needs_browser=True,
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


def _ran(task: Task, values: Mapping[str, Any]) -> bool:
    """False when the last run found no browser to run in."""
    return "unavailable" not in values


def _has_what_is_wanted(task: Task, values: Mapping[str, Any]) -> bool:
    """False when the encoder is wanted on WebGPU and the last run did without."""
    wanted = bool((task.options or {}).get("webgpu_encoder"))
    return not wanted or "encoder" in values.get("providers", {}).get("webgpu", ())


def prove_in_browser(
    target: Target, browser: Browser, variant: Variant, work: Workspace, webgpu_encoder: bool
) -> dict[str, Any]:
    """Prove in a child process, judge, and write the report whichever way it went.

    A smaller variant that is refused on a provider is noted so, and the build goes on.

    :raises StageError: when a file in single precision does not load or run, or answers
        otherwise, with the browser's own words.
    """
    proof, source = Proof("browser", target, variant), target.source
    if browser.missing:
        raise StageError(f"No browser can prove {target.name}: {browser.missing}.")
    if not packages.are_installed():
        missing = "onnxruntime-web is not installed, and npm could not install it"
        if target.browser != "auto":
            raise StageError(f"No browser can prove {target.name}: {missing}.")
        figures = {"unavailable": missing, "files": {}, "against": {}, "providers": {}}
        proof.write(figures, [])
        return {"summary": f"NOT PROVEN: {missing}", "unavailable": missing}
    figures = work.run(
        "tasks.browser:prove",
        graphs={name: str(path) for name, path in target.graph_files(variant).items()},
        names=target.file_names(variant),
        client=target.client.name,
        masks=target.masks,
        prompts=target.prompts,
        precision=variant.precision,
        reference=str(source.reference) if variant.is_smaller else None,
        tracking=str(source.tracking_reference) if source.video else None,
        draw=source.images if variant.is_smaller else None,
        scratch=str(work.scratch),
        executable=browser.executable,
        webgpu=target.webgpu or webgpu_encoder,
        webgpu_encoder=webgpu_encoder,
    )
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
    """Which of encoder and decoder were run on which provider."""
    return {
        provider: [part for part in ("encoder", "decoder") if "run_ms" in figures.get(part, {})]
        for provider, figures in report["providers"].items()
    }


def summary(report: Mapping[str, Any], times: bool) -> str:
    """The browser's figures on a line, for people.

    :param times: tell them too; those of variants, taken in different runs, do not compare.
    """
    texts = [report["browser"]]
    for provider, figures in report["providers"].items():
        if "unavailable" in figures:
            texts.append(f"{provider} not available")
            continue
        name = f"WASM ({report['threads']} threads)"
        if provider == "webgpu":
            adapter = figures["adapter"]
            name = f"WebGPU ({'software' if adapter['software'] else adapter['name']})"
        ran = parts(report)[provider]
        if not times:
            texts.append(f"{name} {' and '.join(ran)}{_placed(figures)}")
            continue
        runs = ", ".join(f"{part} {_seconds(median(figures[part]['run_ms']))}" for part in ran)
        sessions = " + ".join(_seconds(figures[part]["create_ms"]) for part in ran)
        texts.append(f"{name} {runs}, sessions {sessions}{_placed(figures)}")
    ious = [each["mask_iou"] for each in report["providers"].values() if "mask_iou" in each]
    texts.append(f"IoU with onnxruntime's masks {min(ious):.5g}")
    for each in report["providers"].values():
        if "mask_iou" in each.get("tracking", {}):
            tracked = each["tracking"]
            frames = [frame["milliseconds"] for frame in tracked["frames"]]
            time = f", {_seconds(median(frames))} a frame" if times else ""
            texts.append(f"of tracked masks {tracked['mask_iou']['worst']:.5g}{time}")
    memory = report["memory"].get("renderer")
    if memory:
        texts.append(f"peak {memory / 2**30:.1f} GiB")
    return "; ".join(texts)


def _placed(figures: Mapping[str, Any]) -> str:
    """How many matrix products WebGPU left to the CPU, for people; empty where none."""
    left = products_on_cpu(figures.get("placement", {}))
    return f", {left} matrix products on the CPU" if left else ""


def _seconds(milliseconds: float) -> str:
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"


def prove(
    graphs: dict[str, str],
    names: dict[str, str],
    client: str,
    masks: MaskChoice,
    prompts: PromptChoice,
    precision: Precision,
    scratch: str,
    executable: str | None = None,
    webgpu: bool = True,
    webgpu_encoder: bool = False,
    reference: str | None = None,
    draw: str | None = None,
    tracking: str | None = None,
    decoder_runs: int = 5,
    tensors: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Run a model's graphs in the browser and compare with onnxruntime (runs in a child process).

    :param graphs: the file of each graph, by its name; ``names``: what the client calls each.
    :param client: which loads them, by its name, through the page that it has for it.
    :param scratch: an empty folder, for what is served.
    :param executable: the browser; None is Playwright's own.
    :param webgpu: run the decoder there too, and the encoder when the adapter is hardware or
        ``webgpu_encoder``; track there too on hardware, and else look where the nodes are.
    :param reference: PyTorch's answers about the images that ``draw`` draws. Of each prompt the
        mask of the best score is compared, with onnxruntime's and with PyTorch's. By default
        ``verify``'s prompts, and every mask.
    :param tracking: PyTorch's answers about clips, for the constants that a tracker needs; with it
        objects are followed too.
    :param tensors: the inputs and outputs of each graph, where they are known already.
    :returns: the report, times in milliseconds, memory in bytes. What a provider refused is in its
        figures, which end where it did.
    """
    from tasks.clients.client import named
    from tasks.inference import clips, images, tracking_file, truth
    from tasks.inference.prompts import AT_ONCE, PROMPTS, answerable
    from tasks.inference.reference_file import read_reference
    from tasks.inference.sessions import PromptedImage
    from tasks.proof.binding import unchanged

    loads = named(client)
    given = {"reference": reference, "tracking_reference": tracking}
    subject = {name: path for name, path in given.items() if path is not None}
    judged = {Path(path).name: path for path in graphs.values()}
    with unchanged(judged) as files, unchanged(subject) as against:
        video = None if tracking is None else tracking_file.read(tracking)[0].constants
        model = chromium.ServedModel(
            loads, masks, prompts, precision, graphs, names, tensors, video
        )
        together = AT_ONCE if prompts == "many" and reference is None else ()
        put = answerable(PROMPTS, loads)
        # Not square: what scales x by the height is wrong.
        image = images.natural_image(model.size * 3 // 4, model.size)
        asked = PromptedImage(image, put, {}, together)
        stored = None if reference is None else read_reference(reference, masks)
        if draw is not None:
            (drawn,) = truth.draw_images(truth.load(draw), model.size, 1)
            put = answerable(truth.prompts_about(drawn), loads)
            asked = PromptedImage(drawn.image, put, {})
        clip = clips.short(video.image_size) if video else None
        frames = () if clip is None else list(clip.frames)
        tracked: dict[str, clips.Answers] = {}
        with (
            chromium.served(model, asked.image, scratch, frames) as address,
            chromium.launched(executable, webgpu) as browser,
        ):
            run: Run | None = None
            try:
                with chromium.blank_page(browser) as page:
                    run = chromium.Run(page, address, model, asked, chromium.threads_here())
                    run.open()
                    run.wasm(1, decoder_runs)
                    if webgpu:
                        run.webgpu(webgpu_encoder, os.path.getsize(graphs["encoder"]))
            except chromium.Refused as refusal:
                if run is None:
                    raise StageError(str(refusal)) from refusal
                run.refuse(str(refusal))
            if clip is not None:
                tracked = follow_in_page(browser, run, clip)
        # onnxruntime runs after the browser, whose memory is free again.
        compare(run, graphs, asked, stored.images[0] if stored else None, loads)
        if clip is not None:
            compare_tracking(run.report, tracked, clip, model)
    return {
        "files": files,
        "against": {**(stored.against if stored else {}), **against},
        **run.report,
        "measured_by": chromium.identity(executable),
    }


def follow_in_page(browser: PlaywrightBrowser, run: Run, clip: Clip) -> dict[str, Answers]:
    """What the page's tracker answers about a clip, by provider; figures are in the run's report.

    Not where the run has shown that nothing runs. Where WebGPU is emulated nothing is followed on
    it: where the nodes are is noted.
    """
    from tasks.web.tracking_page import TrackingRun

    found: dict[str, Answers] = {}
    following: TrackingRun | None = None

    def works(provider: str) -> bool:
        figures = run.report["providers"].get(provider, {"unavailable": "not run"})
        return not {"refused", "unavailable"} & figures.keys()

    if not works("wasm"):
        return found
    try:
        with chromium.blank_page(browser) as page:
            following = TrackingRun(page, run.address, run.model, run.threads, run.report)
            following.open()
            found["wasm"] = following.follow("wasm", clip)
            if works("webgpu"):
                if not following.adapter["software"]:
                    found["webgpu"] = following.follow("webgpu", clip)
                following.place()
    except chromium.Refused as refusal:
        (following or run).refuse(str(refusal))
    return found


def compare(
    run: Run, graphs: Mapping[str, str], asked: PromptedImage, reference: Any, client: Client
) -> None:
    """Add to a run's report how its answers differ from onnxruntime's to the same inputs.

    A browser scales images in its own way: onnxruntime is given the pixels that the browser had.
    How those differ from the image as it is scaled here is compared apart, as `preprocessing`.

    :param reference: PyTorch's answers, `Predictions`, or None. With it, the mask of the best score
        alone is compared, which is what a person gets.
    """
    from tasks.inference import checks, sessions
    from tasks.inference.metrics import least_iou
    from tasks.inference.preprocessing import Placement, coarse, pixels_of, resized

    if not run.predictions.get("wasm") or not run.predictions["wasm"].masks:
        return
    assert run.image is not None
    place = Placement(run.model.size, run.width, run.height, client.resize)
    pixels = pixels_of(run.image, place)
    scaled = resized(asked.image, place.scaled_height, place.scaled_width)
    preprocessing = checks.mean_difference(coarse(pixels), coarse(scaled))
    if preprocessing is not None:
        preprocessing = max(preprocessing - LEVEL, 0.0)
    run.report["preprocessing"] = preprocessing
    asked = asked._replace(image=pixels, mask_inputs=run.predictions["wasm"].mask_inputs)
    (expected,) = sessions.run_graphs(graphs["encoder"], graphs["decoder"], [asked], client)
    for provider, found in run.predictions.items():
        figures = run.report["providers"][provider]
        figures["differences"] = sessions.differences(found, expected)
        figures["differences"]["features"]["image"] = preprocessing
        if reference is None:
            ious = {n: least_iou(masks, expected.masks[n]) for n, masks in found.masks.items()}
        else:
            ious = {n: least_iou(found.best_mask(n), expected.best_mask(n)) for n in found.masks}
            figures["reference_ious"] = {
                name: least_iou(found.best_mask(name), reference.best_mask(name))
                for name in found.masks
            }
        figures["ious"] = ious
        figures["mask_iou"] = min(ious.values())


def compare_tracking(
    report: dict[str, Any], found: Mapping[str, Answers], clip: Clip, model: ServedModel
) -> None:
    """Add to a report how the page's tracker differs from ours with onnxruntime, by provider."""
    from tasks.inference.clips import play
    from tasks.inference.drift import difference, summary_of
    from tasks.inference.sessions import run_by_name
    from tasks.inference.tracker import Tracker

    assert model.video is not None
    if not found:
        return
    run = run_by_name(model.graphs, {"encoder": model.client.encoder})
    expected = dict(play(Tracker(run, model.video, list(clip.frames)), clip))
    for provider, answers in found.items():
        figures = summary_of([{"name": clip.name, **difference(answers, expected)}])
        report["providers"][provider]["tracking"] |= figures
