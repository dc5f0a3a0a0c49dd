"""A Chromium that runs a model's graphs with onnxruntime-web, step by step, from a loopback page.

The steps are those of ``web/page/check.js``. What a provider refuses is that provider's: what
others answered before it stays.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from tasks.clients.client import Client, description
from tasks.inference.sessions import Predictions, PromptedImage, tensors_in
from tasks.running import child
from tasks.system.errors import StageError
from tasks.system.files import sha256_of
from tasks.system.fingerprint import FINGERPRINTS
from tasks.system.versions import versions
from tasks.web import packages
from tasks.web.server import application, serving

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from playwright.sync_api import Browser as PlaywrightBrowser
    from playwright.sync_api import Page

    from tasks.clients.contract import MaskChoice, PromptChoice, TrackingConstants
    from tasks.config.checks import BrowserCheck
    from tasks.inference.prompts import Prompt

INSTALL_BROWSER = "uv run playwright install chromium"

# Names on the search path, most of them of Linux; then where macOS has its applications.
EXECUTABLES = (
    *("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge"),
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)

PATIENCE = 30  # seconds for a browser to tell its version

# On a software adapter the encoder is not run: a session tells where its nodes are. Beyond this
# size (in bytes) the page's memory would be at risk.
PLACED_ENCODER = 400 << 20


@dataclass(frozen=True)
class Browser:
    """What graphs can be run in: a browser (``executable`` None is Playwright's own) and the
    versions of the packages of npm; or why there is none, and what to do."""

    executable: str | None = None
    packages: Mapping[str, str] = field(default_factory=dict)
    missing: str | None = None


def find(check: BrowserCheck) -> Browser:
    """Look for a browser, and for the npm packages or the npm to install them; starts nothing."""
    found = packages.versions()
    if not (packages.are_installed() or packages.npm()):
        missing = "onnxruntime-web is not installed and there is no npm; install Node.js"
        return Browser(missing=f"{missing} 20 or newer")
    if not found:
        return Browser(missing=f"{packages.MANIFESTS[1]} names no packages")
    for name in (check.executable,) if check.executable else EXECUTABLES:
        executable = shutil.which(name)
        if executable:
            return Browser(executable, found)
    if check.executable:
        missing = f"there is no program {check.executable} ([browser] executable)"
        return Browser(packages=found, missing=missing)
    if any(_playwright_browsers().glob("chromium*-*")):
        return Browser(None, found)
    missing = f"no Chromium, Chrome or Edge is found; install one, or run `{INSTALL_BROWSER}`"
    return Browser(packages=found, missing=missing)


@cache  # many proofs ask
def identity(executable: str | None) -> dict[str, str]:
    """What proves in a browser: the program, and what npm installed to run in it.

    A browser is known by its version in its own words and its file's SHA-256, cut short; it is
    started for its version only when a file changed since it was. Playwright's own is of
    Playwright's version.
    """
    found = {"files of npm": packages.served()}
    if executable is None:
        return {**found, "browser": f"Playwright's {versions('playwright')['playwright']}"}
    program = str(Path(executable).resolve())
    key = f"programs of {program}"
    files = json.loads(
        FINGERPRINTS.remembered(key, [program], lambda: json.dumps(programs_of(program)))
    )
    version = FINGERPRINTS.remembered(f"version of {program}", files, lambda: _version(executable))
    return {**found, "browser": version, "browser's file": FINGERPRINTS.sha256(program)[:12]}


def programs_of(program: str) -> list[str]:
    """A program, and of a script those that it names, among them what it starts.

    ``/usr/bin/chromium`` starts ``$LIBDIR/$APPNAME``, and Chrome's script ``$HERE/chrome``, which
    lies beside it. One too many does no harm.
    """
    path = Path(program)
    with path.open("rb") as file:
        if file.read(2) != b"#!":
            return [program]
    text, values = path.read_text(errors="replace"), dict[str, str]()
    for name, value in re.findall(r"""^\s*(\w+)=["']?([\w./$+-]+)""", text, re.MULTILINE):
        values[name] = Template(value).safe_substitute(values)
    words = set(re.findall(r"[\w.+-]*/[\w./+-]+", Template(text).safe_substitute(values)))
    named = {Path(word) for word in words if word.startswith("/")}
    named |= {path.with_name(Path(word).name) for word in words if Path(word).name}
    found = {str(each.resolve()) for each in named if each.is_file() and os.access(each, os.X_OK)}
    # What snap starts is behind a link to the folder of its revision.
    snaps = {f"/snap/{each.name}/current" for each in named}
    return [program, *sorted((found | {each for each in snaps if os.path.isdir(each)}) - {program})]


def _version(executable: str) -> str:
    """What a browser says of its version; empty of one that says nothing."""
    try:
        done = subprocess.run(
            [executable, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return " ".join(done.stdout.split())


def _playwright_browsers() -> Path:
    """Where ``playwright install`` puts browsers."""
    given = os.environ.get("PLAYWRIGHT_BROWSERS_PATH")
    caches = {"darwin": "~/Library/Caches", "win32": "~/AppData/Local"}
    cache = Path(caches.get(sys.platform, "~/.cache")).expanduser()
    return Path(given) if given else cache / "ms-playwright"


class Refused(Exception):
    """What a step in the browser ended with, in the words of onnxruntime-web or the browser."""


class ServedModel:
    """A variant of a model as its client finds it on a server.

    ``graphs`` are the files by graph, ``names`` what the client calls them; ``tensors`` their
    inputs and outputs, where they are known already. ``video`` is there with the graphs that track.
    """

    def __init__(
        self,
        client: Client,
        masks: MaskChoice,
        prompts: PromptChoice,
        precision: str,
        graphs: Mapping[str, str],
        names: Mapping[str, str],
        tensors: Mapping[str, Any] | None = None,
        video: TrackingConstants | None = None,
    ) -> None:
        self.client, self.masks, self.prompts = client, masks, prompts
        self.precision, self.graphs, self.names = precision, graphs, names
        self.video = video
        self.tensors = tensors or {
            name: client.with_roles(name, tensors_in(graphs[name]))
            for name in ("encoder", "decoder")
        }
        self.size = int(self.tensors["encoder"]["inputs"][0]["shape"][2])

    def manifest(self) -> dict[str, Any]:
        """What a manifest would say of it, as far as a client reads that."""
        files = {
            self.names[graph]: {"size": os.path.getsize(path), "sha256": sha256_of(path)}
            for graph, path in self.graphs.items()
        }
        names = {graph: self.names[graph] for graph in ("encoder", "decoder")}
        return {
            "model": "model",
            "origin": None,
            **description(self.client, self.masks, self.prompts, files, self.tensors, names),
            "dtype": self.precision,
            "variants": [{"precision": self.precision, "deployed": True}],
            "prefer": {"wasm": self.precision, "webgpu": self.precision},
            **({"video": self._video(self.video)} if self.video else {}),
        }

    def _video(self, constants: TrackingConstants) -> dict[str, Any]:
        """As `tasks.proof.manifests.video` has it, without the tensors."""
        names = {n: name for n, name in self.names.items() if n not in ("encoder", "decoder")}
        return {**asdict(constants), "files": names}


@contextmanager
def served(
    model: ServedModel,
    image: NDArray[np.uint8],
    scratch: str,
    frames: Sequence[NDArray[np.uint8]] = (),
) -> Iterator[str]:
    """The address of a server that has a model's files, the page, an image, and a clip's frames.

    :param scratch: a folder for what is served.
    """
    from PIL import Image

    place = Path(scratch) / "served"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    manifest = model.manifest()
    for name, text in model.client.documents(manifest).items():
        (place / name).write_text(text, encoding="utf-8")
    Image.fromarray(image).save(place / "image.png")
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(place / f"frame-{number}.png")
    app = application(
        {
            "/onnxruntime-web": packages.RUNTIME / "dist",
            "/npm": packages.FOLDER / "node_modules",
            "/model": place,
            "/image": place,
            "/": packages.PAGE,
        },
        {"/model/manifest.json": lambda: manifest},
        {f"/model/{name}": Path(model.graphs[graph]) for graph, name in model.names.items()},
    )
    with serving(app) as address:
        yield address


@contextmanager
def launched(executable: str | None, webgpu: bool) -> Iterator[PlaywrightBrowser]:
    """A headless browser, which ends with the context.

    :raises StageError: when it does not start.
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
            yield browser
        finally:
            browser.close()


@contextmanager
def blank_page(browser: PlaywrightBrowser) -> Iterator[Page]:
    """A page whose messages are printed.

    :raises Refused: when the browser ends it.
    """
    from playwright.sync_api import Error

    try:
        page = browser.new_page()
        page.on("console", lambda message: print("console:", message.text))
        page.on("pageerror", lambda error: print("page:", error))
        yield page
        page.close()
    except Error as error:
        raise Refused(f"the browser ended the page: {error.message}") from error


def threads_here() -> int:
    """As many threads of WASM as help: onnxruntime-web itself takes at most 4."""
    return min(4, os.cpu_count() or 1)


class Steps:
    """What a page is told to do with a model's graphs, step by step; its report grows meanwhile.

    ``parts`` are the graphs that the page loads.
    """

    parts: tuple[str, ...] = ("encoder", "decoder")

    def __init__(
        self,
        page: Page,
        address: str,
        model: ServedModel,
        threads: int,
        report: dict[str, Any] | None = None,
    ) -> None:
        """
        :param address: of the server, which has the model.
        :param report: of another page with the same model, which this one adds to.
        """
        self.page = page
        self.address = address
        self.model = model
        self.threads = threads
        empty: dict[str, Any] = {"threads": threads, "providers": {}, "memory": {}, "load_ms": {}}
        self.report = empty if report is None else report
        self._provider = "wasm"  # without it there is nothing
        self._graph: str | None = None

    @property
    def name(self) -> str:
        """Of the page, on the server."""
        return self.model.client.page

    def open(self) -> None:
        """Open the page and load its graphs.

        :raises Refused: naming the file.
        """
        browser = self.page.context.browser
        assert browser is not None
        self.report["browser"] = f"Chromium {browser.version}"
        self.page.goto(f"{self.address}/{self.name}")
        found = self._step("open the page", "environment")
        self.report["isolated"] = found["isolated"]
        self.adapter = found["adapter"]
        for part in self.parts:
            self._graph = part
            found = self._step(f"{part}: load", "load", part=part)
            self.report["load_ms"].setdefault(part, found["milliseconds"])

    def refuse(self, reason: str) -> None:
        """Note that the provider at work refused something."""
        figures = self._of_provider()
        figures["refused"] = {"words": reason, "graph": self._graph}

    def _of_provider(self) -> dict[str, Any]:
        """What the report has of the provider at work."""
        found: dict[str, Any] = self.report["providers"].setdefault(self._provider, {})
        return found

    def _figures(self) -> dict[str, Any]:
        """Where of it this page's figures are."""
        return self._of_provider()

    def _step(self, what: str, step: str, **arguments: Any) -> Any:
        print(what, flush=True)
        job = {"step": step, **arguments}
        result = self.page.evaluate("job => window.check(job)", job)
        self._measure_memory()
        if "error" in result:
            raise Refused(f"{what}: {result['error']}")
        return result

    def _start(self, provider: str) -> None:
        self._provider, self._graph = provider, None
        found = self._step(
            f"start onnxruntime-web on {provider}",
            "start",
            provider=provider,
            threads=self.threads,
            nothing=list(_nothing()),
        )
        client = f"{found['client']}, " if "client" in found else ""
        self.report.setdefault("runtime", f"{client}onnxruntime-web {found['version']}")
        self._figures()["start_ms"] = found["milliseconds"]

    def _create(self, part: str) -> None:
        provider, self._graph = self._provider, part
        what = f"{part} on {provider}: create its session"
        found = self._step(what, "create", part=part, provider=provider)
        self._figures()[part] = {"create_ms": found["milliseconds"]}

    def _place(self, part: str) -> None:
        """Note where the nodes of a graph are: see ``web/page/placement.js``."""
        provider, self._graph = self._provider, part
        what = f"{part} on {provider}: find its nodes"
        try:
            found = self._step(what, "nodes", part=part, provider=provider)
        except Refused as refusal:  # a session for its log alone: where they are is not known
            print(refusal)
            found = {"placement": None}
        self._of_provider().setdefault("placement", {})[part] = found["placement"]

    def _measure_memory(self) -> None:
        """Note the largest memory so far of the page's process, and of that of the GPU."""
        browser = self.page.context.browser
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


class Run(Steps):
    """The image part: an image is encoded, and prompts are decoded."""

    def __init__(
        self, page: Page, address: str, model: ServedModel, asked: PromptedImage, threads: int
    ) -> None:
        """
        :param asked: the image that the server has, and what is asked about it.
        """
        super().__init__(page, address, model, threads)
        self.asked = asked
        self.height, self.width = asked.image.shape[:2]
        self.predictions: dict[str, Predictions] = {}
        self.image: NDArray[np.float32] | None = None

    def wasm(self, encoder_runs: int, decoder_runs: int) -> None:
        """Run everything on WASM.

        :raises Refused: naming the part and the provider.
        """
        self._start("wasm")
        self._create("decoder")
        self._create("encoder")
        self._encode(encoder_runs)
        self._decode(self.asked.prompts, decoder_runs)
        for group in self.asked.at_once:
            self._put(group, 1)

    def webgpu(self, run_encoder: bool, encoder_size: int, runs: int = 1) -> None:
        """Run the decoder on WebGPU, and the encoder too on hardware or when asked.

        An adapter on which not even a graph that does nothing runs is none of the model's faults:
        it is noted as unavailable.

        :param encoder_size: of its file, in bytes.
        :raises Refused: naming the part and the provider.
        """
        if self.adapter is None:
            return
        software = self.adapter["software"]
        try:
            self._start("webgpu")
        except Refused as refusal:
            self.predictions.pop("webgpu", None)
            self.report["providers"]["webgpu"] = {
                "adapter": self.adapter,
                "unavailable": str(refusal),
            }
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
        self._decode(self.asked.prompts[: 1 if software else None], runs)
        self._place("decoder")

    def refuse(self, reason: str) -> None:
        """Note that the provider at work refused something, and forget what it answered."""
        super().refuse(reason)
        self.predictions.pop(self._provider, None)

    def _start(self, provider: str) -> None:
        super()._start(provider)
        self.predictions[provider] = Predictions()

    def _encode(self, runs: int) -> None:
        provider, self._graph = self._provider, "encoder"
        what = f"encoder on {provider}: run"
        times = []
        for _ in range(runs):
            found = self._step(what, "encode", provider=provider, image="/image/image.png")
            times.append(found["milliseconds"])
        features = {role: unpacked(packed) for role, packed in found["values"].items()}
        self.image = features.pop("image")
        self.predictions[provider].features.update(features)
        self.report["providers"][provider]["encoder"]["run_ms"] = times

    def _decode(self, prompts: Sequence[Prompt], runs: int) -> None:
        """Put prompts one by one."""
        times: list[float] = []
        for prompt in prompts:
            times += self._put((prompt,), runs, prompt.refines)
        self.report["providers"][self._provider]["decoder"]["run_ms"] = times

    def _put(
        self, prompts: Sequence[Prompt], runs: int, previous: str | None = None
    ) -> list[float]:
        """Put prompts at once, and note the answers.

        :param previous: the name of the prompt whose best mask they refine.
        :returns: the milliseconds of each run.
        """
        provider, self._graph = self._provider, "decoder"
        predictions = self.predictions[provider]
        asked = [self._in_pixels(prompt) for prompt in prompts]
        found = self._step(
            f"decoder on {provider}: run {', '.join(repr(prompt.name) for prompt in prompts)}",
            "decode",
            provider=provider,
            name=prompts[0].name,
            prompt=asked[0],
            prompts=asked,
            previous=previous,
            runs=runs,
        )
        masks, scores = (unpacked(found["values"][role]) for role in ("masks", "iou_predictions"))
        for number, prompt in enumerate(prompts):
            predictions.add(prompt.name, masks[number], scores[number])
        if found["mask_input"]:
            predictions.mask_inputs[prompts[0].name] = unpacked(found["mask_input"])[0]
        if previous is not None:
            self._check_refined(prompts[0].name, previous)
        return list(found["times"])

    def _check_refined(self, name: str, previous: str) -> None:
        """See that a prompt refined the best mask of an earlier one.

        :raises Refused: when it was another mask, or none.
        """
        import numpy as np

        refined = self.predictions[self._provider].mask_inputs.get(name)
        best = self.predictions["wasm"].best_mask(previous)  # which the page has kept
        if refined is None or not np.array_equal(refined, best):
            raise Refused(
                f"prompt {name!r} was to refine the best mask of prompt {previous!r}; the page fed "
                f"{'none' if refined is None else 'another'}"
            )

    def _in_pixels(self, prompt: Prompt) -> dict[str, Any]:
        """A prompt as preprocessing.js takes it."""
        across, down = self.width, self.height
        return {
            "points": [
                {"x": x * across, "y": y * down, "foreground": label == 1}
                for (x, y), label in zip(prompt.points, prompt.labels, strict=True)
            ],
            "box": prompt.box
            and [
                side * scale
                for side, scale in zip(prompt.box, (across, down, across, down), strict=True)
            ],
        }


def _nothing() -> bytes:
    """The smallest model: what goes in comes out."""
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    node = helper.make_node("Identity", ["x"], ["y"])
    graph = helper.make_graph([node], "nothing", values[:1], values[1:])
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    return model.SerializeToString()  # type: ignore[no-any-return]


def unpacked(packed: Mapping[str, Any]) -> NDArray[np.float32]:
    """An array as ``packed`` of steps.js writes it."""
    import numpy as np

    values = np.frombuffer(base64.b64decode(packed["base64"]), np.float32)
    return values.reshape(packed["dims"])
