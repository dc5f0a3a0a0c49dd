"""Stage 7: the graphs proven in a real browser, before anything is deployed.

A headless Chromium loads both files with onnxruntime-web from the loopback server, runs the image
and prompts of ``verify``, and what it answers is compared with onnxruntime's own answers. On WASM
always; the decoder on WebGPU where the browser gives an adapter. Target: ``browser.json``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks import child, fidelity, variant, verify
from tasks.child import StageError
from tasks.configuration import (
    FP32,
    BrowserCheck,
    Configuration,
    ConfigurationError,
    Model,
    Tolerances,
    Variant,
)
from tasks.contract import described
from tasks.files import scratch_folder, write_atomically
from tasks.staleness import Trace, versions
from tasks.verify import Answers, Case, Prompt

if TYPE_CHECKING:
    import numpy as np
    from doit.task import Task
    from numpy.typing import NDArray
    from playwright.sync_api import Page

PAGE = child.PROJECT / "web/page"
RUNTIME = child.PROJECT / "web/node_modules/onnxruntime-web"
INSTALL_RUNTIME = "npm ci --ignore-scripts --prefix web"
INSTALL_BROWSER = "uv run playwright install chromium"

PACKAGES = ("onnxruntime", "numpy", "pillow")
SOURCES = (
    "tasks/browser.py",
    "tasks/server.py",
    "tasks/verify.py",
    *(f"web/page/{name}" for name in ("check.html", "check.js", "model.js")),
    *(f"web/page/{name}" for name in ("preprocessing.js", "image.js")),
)

# Names on the search path, most of them of Linux; then where macOS has its applications.
EXECUTABLES = (
    *("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge"),
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)


@dataclass(frozen=True)
class Browser:
    """What the stage runs on: a browser (``executable`` None is Playwright's own) and the
    version of onnxruntime-web; or why it cannot, and what to do."""

    executable: str | None = None
    runtime: str | None = None
    missing: str | None = None


def find(check: BrowserCheck) -> Browser:
    """Look for a browser and the npm packages; starts nothing."""
    try:
        runtime = json.loads((RUNTIME / "package.json").read_text())["version"]
    except (OSError, ValueError, KeyError):
        return Browser(missing=f"onnxruntime-web is not installed; run `{INSTALL_RUNTIME}`")
    for name in (check.executable,) if check.executable else EXECUTABLES:
        executable = shutil.which(name)
        if executable:
            return Browser(executable, runtime)
    if check.executable:
        missing = f"there is no program {check.executable} ([browser] executable)"
        return Browser(runtime=runtime, missing=missing)
    if any(_playwright_browsers().glob("chromium*-*")):
        return Browser(None, runtime)
    missing = f"no Chromium, Chrome or Edge is found; install one, or run `{INSTALL_BROWSER}`"
    return Browser(runtime=runtime, missing=missing)


def _playwright_browsers() -> Path:
    """Where ``playwright install`` puts browsers."""
    given = os.environ.get("PLAYWRIGHT_BROWSERS_PATH")
    caches = {"darwin": "~/Library/Caches", "win32": "~/AppData/Local"}
    cache = Path(caches.get(sys.platform, "~/.cache")).expanduser()
    return Path(given) if given else cache / "ms-playwright"


def check_required(config: Configuration, browser: Browser) -> None:
    """Refuse a configuration that asks for a browser where there is none.

    :raises ConfigurationError: saying what is missing and how to install it.
    """
    required = [model.name for model in config.models if model.browser is True]
    if required and browser.missing:
        raise ConfigurationError(
            f"{config.path} asks for a browser's proof ([browser] enabled, or `browser` of "
            f'{", ".join(required)}), but {browser.missing}. Or set it to "auto" or false.'
        )


def is_part_of_build(model: Model, browser: Browser) -> bool:
    """Whether a browser must have run the model before it is deployed."""
    return model.browser is True or (model.browser == "auto" and not browser.missing)


def report_path(config: Configuration, model: Model, chosen: Variant = FP32) -> Path:
    """The report of a model, or of one of its variants."""
    name = "browser.json" if chosen == FP32 else f"browser.{chosen.name}.json"
    return config.build / "models" / model.name / name


def task_name(model: Model, chosen: Variant) -> str:
    """A model's own proof has its name alone."""
    return model.name if chosen == FP32 else f"{model.name}:{chosen.name}"


def check_of(config: Configuration, chosen: Variant) -> BrowserCheck:
    """The rules for a variant.

    Integer products round a little differently on each machine: of eight bits each mask must agree
    as well as ``[fidelity]`` asks of the worst, and nothing more.
    """
    if chosen.precision != "q8":
        return config.browser
    loose = Tolerances(encoder=math.inf, masks=math.inf, scores=math.inf)
    least = config.fidelity.mask_iou["q8"] - config.fidelity.worst
    return replace(config.browser, tolerances=loose, mask_iou=least)


def task(
    config: Configuration, model: Model, browser: Browser, chosen: Variant = FP32
) -> dict[str, Any]:
    """doit's task for one model, or one of its variants."""
    check = check_of(config, chosen)
    inputs = {
        "onnxruntime-web": browser.runtime,
        "webgpu": model.webgpu,
        "mask_iou": check.mask_iou,
        **written(check.tolerances),
        **versions(*PACKAGES),
    }
    return {
        "name": task_name(model, chosen),
        "actions": [(prove_model, [config, model, browser, chosen])],
        "file_dep": [
            *map(str, variant.graphs(config, model, chosen)),
            *SOURCES,
            *([] if chosen == FP32 else fidelity.image_sources(model)),
        ],
        "task_dep": [f"verify:{model.name}"],
        "targets": [str(report_path(config, model, chosen))],
        "uptodate": [Trace(inputs), _has_what_is_asked],
        "params": [
            {
                "name": "webgpu_encoder",
                "long": "webgpu-encoder",
                "type": bool,
                "default": False,
                "help": "run the encoder on WebGPU too where it is emulated (minutes)",
            }
        ],
        "clean": True,
        "io": {"capture": False},
    }


def written(tolerances: Tolerances) -> dict[str, float | None]:
    """Tolerances as JSON has them; None where anything goes."""
    return {key: None if math.isinf(value) else value for key, value in asdict(tolerances).items()}


def _has_what_is_asked(task: Task, values: Mapping[str, Any]) -> bool:
    """False when the encoder on WebGPU is asked for and the last run did without."""
    asked = bool((task.options or {}).get("webgpu_encoder"))
    return not asked or "encoder" in values.get("providers", {}).get("webgpu", ())


@child.action
def prove_model(
    config: Configuration,
    model: Model,
    browser: Browser,
    chosen: Variant,
    webgpu_encoder: bool,
    task: Task,
) -> dict[str, Any]:
    """Prove in a child process, judge, and write the report whichever way it went.

    A variant that is refused on a provider is noted so, and the build goes on.

    :raises StageError: when a file in single precision does not load or run, or answers
        otherwise, with the browser's own words.
    """
    if browser.missing:
        raise StageError(f"No browser can prove {model.name}: {browser.missing}.")
    graphs = variant.graphs(config, model, chosen)
    name = f"browser-{task_name(model, chosen).replace(':', '-')}"
    log = config.build / "logs" / f"{name}.log"
    check = check_of(config, chosen)
    with scratch_folder(config.build / "tmp" / name) as scratch:
        arguments = {
            "encoder": str(graphs.encoder),
            "decoder": str(graphs.decoder),
            "tensors": verify.read_report(config, model)["tensors"],
            "draw": None if chosen == FP32 else fidelity.images(model),
            "scratch": str(scratch),
            "executable": browser.executable,
            "webgpu": model.webgpu or webgpu_encoder,
            "webgpu_encoder": webgpu_encoder,
        }
        result = child.run("tasks.browser:prove", arguments, log, task.verbosity == 2)
    memory = result.pop("peak_memory")
    error = result.pop("error")
    failures = [error] if error else []
    failures += beyond(result["providers"], check)
    report = {
        "passed": not failures,
        "failures": failures,
        "tolerances": {"mask_iou": check.mask_iou, **written(check.tolerances)},
        **result,
    }
    path = report_path(config, model, chosen)
    write_atomically(path, json.dumps(report, indent=2) + "\n")
    if failures and chosen != FP32:
        note = f"{model.name}'s {chosen.name} does not work everywhere: {'; '.join(failures)}"
        return {"summary": f"REFUSED: {failures[0]}", "note": note, "peak_memory": memory}
    if failures:
        raise StageError(
            f"{graphs.encoder.parent} does not work in {result.get('browser', 'the browser')}, "
            "and is not deployed:\n"
            + "\n".join(f"- {failure}" for failure in failures)
            + f"\nReport: {path}. Log: {log}"
        )
    return {"summary": summary(result), "peak_memory": memory, "providers": _parts(result)}


def _parts(result: Mapping[str, Any]) -> dict[str, list[str]]:
    """Which parts were run on which provider."""
    return {
        provider: [part for part in ("encoder", "decoder") if part in figures]
        for provider, figures in result["providers"].items()
    }


def summary(report: Mapping[str, Any]) -> str:
    """The browser's figures on a line, for people."""
    texts = [report["browser"]]
    for provider, figures in report["providers"].items():
        if provider == "wasm":
            name = f"WASM ({report['threads']} threads)"
        else:
            name = f"WebGPU ({'software' if _is_software(figures) else figures['adapter']['name']})"
        parts = [part for part in ("encoder", "decoder") if part in figures]
        runs = ", ".join(f"{part} {_seconds(figures[part]['run_ms'])}" for part in parts)
        sessions = " + ".join(_seconds(figures[part]["create_ms"]) for part in parts)
        texts.append(f"{name} {runs}, sessions {sessions}")
    worst = min(figures["mask_iou"] for figures in report["providers"].values())
    texts.append(f"IoU with onnxruntime's masks {worst:.5g}")
    memory = report["memory"].get("renderer")
    if memory:
        texts.append(f"peak {memory / 2**30:.1f} GiB")
    return "; ".join(texts)


def _is_software(figures: Mapping[str, Any]) -> bool:
    return bool((figures.get("adapter") or {}).get("software"))


def _seconds(milliseconds: float) -> str:
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"


def proven(report: Mapping[str, Any]) -> dict[str, Any]:
    """What a manifest says of a report: the agreement, but no time."""
    return {
        "browser": report["browser"],
        "runtime": report["runtime"],
        "tolerances": report["tolerances"],
        "providers": {
            provider: _agreement(parts, report["providers"][provider])
            for provider, parts in _parts(report).items()
        },
    }


def _agreement(parts: list[str], figures: Mapping[str, Any]) -> dict[str, Any]:
    """What a manifest says of one provider."""
    if "error" in figures:
        return {"error": figures["error"]}
    return {
        "parts": parts,
        "software": _is_software(figures),
        "mask_iou": figures["mask_iou"],
        **figures["differences"],
    }


def beyond(providers: Mapping[str, Any], check: BrowserCheck) -> list[str]:
    """A sentence for each figure beyond ``[browser]``'s tolerances; pure."""
    failures = []
    for provider, figures in providers.items():
        if "error" in figures:
            continue
        found = verify.beyond_tolerance(figures["differences"], check.tolerances, "[browser]")
        failures += [f"on {provider}, {sentence}" for sentence in found]
        failures += [
            f"on {provider}, masks of prompt '{name}': IoU with onnxruntime's is {iou:.5g}, "
            f"[browser] mask_iou asks for {check.mask_iou:g}"
            for name, iou in figures["ious"].items()
            if not iou >= check.mask_iou
        ]
    return failures


class Refused(Exception):
    """What a step in the browser ended with, in the words of onnxruntime-web or the browser."""


def prove(
    encoder: str,
    decoder: str,
    tensors: Mapping[str, Any],
    scratch: str,
    executable: str | None = None,
    webgpu: bool = True,
    webgpu_encoder: bool = False,
    threads: int | None = None,
    encoder_runs: int = 1,
    decoder_runs: int = 5,
    draw: str | None = None,
) -> dict[str, Any]:
    """Run both graphs in the browser and compare with onnxruntime (runs in a child process).

    :param tensors: those of ``encoder`` and ``decoder``, as in ``verify``'s report.
    :param scratch: an empty folder, for the image.
    :param executable: the browser; None is Playwright's own.
    :param webgpu: run the decoder there too, and the encoder when the adapter is hardware or
        ``webgpu_encoder``.
    :param threads: of WASM; by default the processors there are, at most 4.
    :param draw: a variant's images, as `fidelity` has them: of each prompt the mask with the best
        score is compared. By default ``verify``'s image and prompts, and every mask.
    :returns: the report, times in milliseconds, memory in bytes. ``error`` is None or what the
        browser refused, and then the figures end where it did.
    """
    from PIL import Image

    from tasks.server import application, serving

    names = Path(encoder).name, Path(decoder).name
    files = {Path(path).name: _file(path) for path in (encoder, decoder)}
    manifest = described(files, **tensors, names=names)
    size = tensors["encoder"]["inputs"][0]["shape"][2]
    case = verify.Case(verify.natural_image(size), verify.PROMPTS, {})
    if draw is not None:
        case = fidelity.first_case(draw, size)
    Image.fromarray(case.image).save(Path(scratch) / "image.png")
    app = application(
        {
            "/onnxruntime-web": RUNTIME / "dist",
            "/model": Path(encoder).parent,
            "/image": Path(scratch),
            "/": PAGE,
        },
        {"/model/manifest.json": lambda: manifest},
    )
    with serving(app) as address:
        run = Run(address, case, threads or min(4, os.cpu_count() or 1))
        error = None
        try:
            with _page(executable, webgpu) as page:
                run.wasm(page, encoder_runs, decoder_runs)
                if webgpu:
                    run.webgpu(page, webgpu_encoder)
        except Refused as refusal:
            error = str(refusal)
            run.refuse(error)
    # onnxruntime runs after the browser, whose memory is free again.
    run.compare(encoder, decoder, best=draw is not None)
    return {**run.report, "error": error}


def _file(path: str) -> dict[str, Any]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"size": file.tell(), "sha256": digest}


@contextmanager
def _page(executable: str | None, webgpu: bool) -> Iterator[Page]:
    """A blank page in a browser of its own, which ends with the context.

    :raises StageError: when the browser does not start.
    :raises Refused: when it ends by itself.
    """
    from playwright.sync_api import Error, sync_playwright

    # Chromium gives WebGPU to headless pages of Linux only when asked; where there is no
    # hardware, the adapter is SwiftShader.
    flags = ["--enable-unsafe-webgpu"] if webgpu else []
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=executable, args=flags)
        except Error as error:
            reason = error.message.splitlines()[0]
            raise StageError(
                f"{executable or 'Playwright’s Chromium'} does not start: {reason}. "
                "Name another with [browser] executable."
            ) from error
        try:
            page = browser.new_page()
            page.on("console", lambda message: print("console:", message.text))
            page.on("pageerror", lambda error: print("page:", error))
            yield page
        except Error as error:
            raise Refused(f"the browser ended the page: {error.message}") from error
        finally:
            browser.close()


class Run:
    """One run in a page, its report growing step by step."""

    def __init__(self, address: str, case: Case, threads: int) -> None:
        """
        :param address: of the server.
        :param case: the image that the server has, and what is asked about it.
        """
        self.address = address
        self.case = case
        self.size = case.image.shape[0]
        self.threads = threads
        self.report: dict[str, Any] = {"threads": threads, "providers": {}, "memory": {}}
        self._answers: dict[str, Answers] = {}
        self._image: NDArray[np.float32] | None = None

    def wasm(self, page: Page, encoder_runs: int, decoder_runs: int) -> None:
        """Load both files and run everything on WASM.

        :raises Refused: naming the part and the provider.
        """
        browser = page.context.browser
        assert browser is not None
        self.report["browser"] = f"Chromium {browser.version}"
        page.goto(f"{self.address}/check.html")
        found = self._step(page, "open the page", "environment")
        self.report["isolated"] = found["isolated"]
        self._adapter = found["adapter"]
        loads = {
            part: self._step(page, f"{part}: load", "load", part=part)["milliseconds"]
            for part in ("encoder", "decoder")
        }
        self.report["load_ms"] = {part: round(time) for part, time in loads.items()}
        self._start(page, "wasm")
        self._create(page, "decoder", "wasm")
        self._create(page, "encoder", "wasm")
        self._encode(page, "wasm", encoder_runs)
        self._decode(page, "wasm", self.case.prompts, decoder_runs)

    def webgpu(self, page: Page, encoder: bool) -> None:
        """Run the decoder on WebGPU, if the browser has an adapter, and perhaps the encoder.

        :param encoder: run it on a software adapter too.
        :raises Refused: naming the part and the provider.
        """
        if self._adapter is None:
            return
        software = self._adapter["software"]
        self._start(page, "webgpu")
        self.report["providers"]["webgpu"]["adapter"] = self._adapter
        if encoder or not software:
            self._create(page, "encoder", "webgpu")
            self._encode(page, "webgpu", 1)
        self._create(page, "decoder", "webgpu")
        # A software adapter takes 20 s for a run of the decoder.
        self._decode(page, "webgpu", self.case.prompts[: 1 if software else None], 1)

    def refuse(self, reason: str) -> None:
        """Note that the provider at work refused something, and forget what it answered."""
        if self._answers:
            provider = list(self._answers)[-1]
            self.report["providers"][provider]["error"] = reason
            del self._answers[provider]

    def compare(self, encoder: str, decoder: str, best: bool) -> None:
        """Add how the browser's answers differ from onnxruntime's to the same inputs.

        :param best: compare the mask of the best score alone.
        """
        import numpy as np

        if "wasm" not in self._answers:
            return
        prepared = verify.preprocess(self.case.image)
        assert self._image is not None
        self.report["preprocessing"] = float(f"{np.abs(self._image - prepared).max():.2g}")
        wasm = self._answers["wasm"]
        case = self.case._replace(mask_inputs=wasm.mask_inputs)
        (expected,) = verify.run_graphs(encoder, decoder, [case])
        for provider, answers in self._answers.items():
            ious = {}
            for name, masks in answers.masks.items():
                chosen = [int(expected.scores[name].argmax())] if best else slice(None)
                iou = least_iou(masks[chosen], expected.masks[name][chosen])
                ious[name] = float(f"{iou:.6g}")
            figures = self.report["providers"][provider]
            figures["differences"] = verify.differences(answers, expected)
            figures["ious"] = ious
            figures["mask_iou"] = min(ious.values())

    def _step(self, page: Page, what: str, step: str, **arguments: Any) -> Any:
        print(what, flush=True)
        job = {"step": step, **arguments}
        result = page.evaluate("job => window.check(job)", job)
        self._measure_memory(page)
        if "error" in result:
            raise Refused(f"{what}: {result['error']}")
        return result

    def _start(self, page: Page, provider: str) -> None:
        found = self._step(
            page,
            f"start onnxruntime-web on {provider}",
            "start",
            provider=provider,
            threads=self.threads,
            nothing=list(_nothing()),
        )
        self.report["runtime"] = f"onnxruntime-web {found['version']}"
        self._answers[provider] = Answers({}, {}, {}, {})
        self.report["providers"][provider] = {"start_ms": round(found["milliseconds"])}

    def _create(self, page: Page, part: str, provider: str) -> None:
        what = f"{part} on {provider}: create its session"
        found = self._step(page, what, "create", part=part, provider=provider)
        figures = {"create_ms": round(found["milliseconds"])}
        self.report["providers"][provider][part] = figures

    def _encode(self, page: Page, provider: str, runs: int) -> None:
        from statistics import median

        what = f"encoder on {provider}: run"
        times = []
        for _ in range(runs):
            found = self._step(page, what, "encode", provider=provider, image="/image/image.png")
            times.append(found["milliseconds"])
        features = {name: _array(packed) for name, packed in found["values"].items()}
        self._image = features.pop("image")
        self._answers[provider].features.update(features)
        self.report["providers"][provider]["encoder"]["run_ms"] = round(median(times))

    def _decode(self, page: Page, provider: str, prompts: Sequence[Prompt], runs: int) -> None:
        from statistics import median

        answers = self._answers[provider]
        times = []
        for prompt in prompts:
            found = self._step(
                page,
                f"decoder on {provider}: run prompt '{prompt.name}'",
                "decode",
                provider=provider,
                name=prompt.name,
                prompt=self._in_pixels(prompt),
                previous=prompts[0].name if prompt.previous_mask else None,
                runs=runs,
            )
            answers.masks[prompt.name] = _array(found["values"]["masks"])[0]
            answers.scores[prompt.name] = _array(found["values"]["iou_predictions"])[0]
            if found["mask_input"]:
                answers.mask_inputs[prompt.name] = _array(found["mask_input"])[0]
            times += found["times"]
        self.report["providers"][provider]["decoder"]["run_ms"] = round(median(times), 1)

    def _in_pixels(self, prompt: Prompt) -> dict[str, Any]:
        """A prompt as preprocessing.js takes it."""
        return {
            "points": [
                {"x": x * self.size, "y": y * self.size, "foreground": label == 1}
                for (x, y), label in zip(prompt.points, prompt.labels, strict=True)
            ],
            "box": [each * self.size for each in prompt.box] if prompt.box else None,
        }

    def _measure_memory(self, page: Page) -> None:
        """Note the largest memory so far of the page's process, and of that of the GPU."""
        browser = page.context.browser
        assert browser is not None
        session = browser.new_browser_cdp_session()
        processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
        session.detach()
        for process in processes:
            peak = child.peak_memory_of(process["id"])
            kind = process["type"].lower()
            if peak and kind in ("renderer", "gpu"):
                memory = self.report["memory"]
                memory[kind] = max(memory.get(kind, 0), peak)


def _nothing() -> bytes:
    """The smallest model: what goes in comes out."""
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    node = helper.make_node("Identity", ["x"], ["y"])
    graph = helper.make_graph([node], "nothing", values[:1], values[1:])
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    return model.SerializeToString()  # type: ignore[no-any-return]


def _array(packed: Mapping[str, Any]) -> NDArray[np.float32]:
    import numpy as np

    values = np.frombuffer(base64.b64decode(packed["base64"]), np.float32)
    return values.reshape(packed["dims"])


def least_iou(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """The smallest IoU of several pairs of masks, logits (K, M, M); 1 where both are empty."""
    import numpy as np

    ious = []
    for one, other in zip(found > 0, expected > 0, strict=True):
        union = np.logical_or(one, other).sum()
        ious.append(np.logical_and(one, other).sum() / union if union else 1.0)
    return float(min(ious))
