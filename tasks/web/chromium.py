"""A page from a loopback server that runs a model's graphs with onnxruntime-web, step by step.

``web/page/proof/check.js`` defines the steps. A driver sends them to the page: Playwright, for a
Chromium, or a browser that was started with the page's address (`tasks.web.started_browser`).
If a provider fails, the answers of the providers before it stay valid.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from tasks.clients.client import Client, description
from tasks.clients.runtime import RuntimePath, WebProvider
from tasks.inference.graph_file import tensors_of
from tasks.running import child
from tasks.system.errors import StageError
from tasks.system.files import sha256_of
from tasks.web import packages
from tasks.web.server import application, serving

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from playwright.sync_api import Browser as PlaywrightBrowser
    from playwright.sync_api import Page

    from tasks.clients.contract import MaskChoice, PromptChoice, TrackingConstants


class Refused(Exception):
    """A step in the browser failed; with the error message of onnxruntime-web or the browser."""


class Driver(Protocol):
    """Sends steps to a page."""

    @property
    def browser(self) -> str:
        """The browser's name and version."""

    def open(self, address: str) -> None:
        """Open a page that runs steps."""

    def run(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """Run a step and return its result; `Refused` if the browser ends the page."""

    def memory(self) -> Mapping[str, int]:
        """The peak memory so far, in bytes: ``renderer`` (the page's process) and ``gpu``."""


@dataclass(frozen=True)
class ServedModel:
    """A variant of a model as its client loads it from a server.

    ``graphs`` are the files by graph name, ``names`` the client's names for the files. ``video``
    is given with the tracking graphs. ``tensors_from`` are other files with the same inputs and
    outputs, for graphs that onnxruntime cannot read.
    """

    client: Client
    masks: MaskChoice
    prompts: PromptChoice
    precision: str
    graphs: Mapping[str, str]
    names: Mapping[str, str]
    video: TrackingConstants | None = None
    tensors_from: Mapping[str, str] | None = None

    @cached_property
    def tensors(self) -> dict[str, dict[str, Any]]:
        """The inputs and outputs of the graphs that the client loads, of encoder and decoder."""
        files = self.tensors_from or self.graphs
        return {
            name: self.client.with_roles(name, tensors_of(files[name]))
            for name in self.client.graphs
        }

    @property
    def size(self) -> int:
        """The side of the square that the encoder computes on, in pixels."""
        return max(map(int, self.tensors["encoder"]["inputs"][0]["shape"]))

    def manifest(self) -> dict[str, Any]:
        """The part of the manifest that a client reads."""
        files = {
            self.names[graph]: {"size": os.path.getsize(path), "sha256": sha256_of(path)}
            for graph, path in self.graphs.items()
        }
        names = {graph: self.names[graph] for graph in self.client.graphs}
        tracking = {graph: name for graph, name in self.names.items() if graph not in names}
        return {
            "model": "model",
            "origin": None,
            **description(self.client, self.masks, self.prompts, files, self.tensors, names),
            "dtype": self.precision,
            "variants": [{"precision": self.precision, "deployed": True}],
            "recommended": {each: {"variant": self.precision} for each in ("wasm", "webgpu")},
            **({"video": {**asdict(self.video), "files": tracking}} if self.video else {}),
        }


class Site(NamedTuple):
    """A server's address, and the arrays that its page posted, as bytes by name."""

    address: str
    arrays: dict[str, bytes]

    def array(self, posted: Mapping[str, Any]) -> NDArray[np.float32]:
        """The array that the function ``posted`` in steps.js sent."""
        import numpy as np

        values = np.frombuffer(self.arrays.pop(posted["name"]), np.float32)
        return values.reshape(posted["dims"])


@contextmanager
def served(
    model: ServedModel,
    image: NDArray[np.uint8],
    scratch: str,
    frames: Sequence[NDArray[np.uint8]] = (),
    embedding: NDArray[np.float32] | None = None,
    second: NDArray[np.uint8] | None = None,
    steps: Callable[[bytes], bytes] | None = None,
) -> Iterator[Site]:
    """Serves a model's files, the page, an image, and a clip's frames from a ``scratch`` folder.

    :param embedding: of the image, for a decoder without an encoder.
    :param second: another image.
    :param steps: answers a page that requests its next step.
    """
    from PIL import Image

    place = Path(scratch) / "served"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    manifest, arrays = model.manifest(), dict[str, bytes]()
    for name, text in model.client.documents(manifest).items():
        (place / name).write_text(text, encoding="utf-8")
    for name, pixels in (("image", image), ("second", second)):
        if pixels is not None:
            Image.fromarray(pixels).save(place / f"{name}.png")
    if embedding is not None:
        (place / "embedding.bin").write_bytes(embedding.astype("<f4").tobytes())
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(place / f"frame-{number}.png")
    app = application(
        {
            "/npm": packages.MODULES,
            "/model": place,
            "/image": place,
            "/": packages.PAGE,
        },
        {"/model/manifest.json": lambda: manifest},
        {f"/model/{name}": Path(model.graphs[graph]) for graph, name in model.names.items()},
        arrays,
        steps=steps,
        isolated=not model.client.wasm_alone,
    )
    with serving(app) as address:
        yield Site(address, arrays)


@contextmanager
def launched(executable: str | None, webgpu: bool) -> Iterator[PlaywrightBrowser]:
    """A headless browser, which ends with the context; a `StageError` if it does not start."""
    from playwright.sync_api import Error, sync_playwright

    # On Linux, headless Chromium offers WebGPU only with this flag; without a GPU the adapter is
    # SwiftShader.
    flags = ["--enable-unsafe-webgpu"] if webgpu else []
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=executable, args=flags)
        except Error as error:
            reason = error.message.splitlines()[0]
            raise StageError(
                f"{executable or 'Playwright’s Chromium'} does not start: {reason}. "
                "Choose another browser with [browser] executable."
            ) from error
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def blank_page(browser: PlaywrightBrowser) -> Iterator[Driver]:
    """A page whose console messages are printed; `Refused` if the browser ends the page."""
    from playwright.sync_api import Error

    try:
        page = browser.new_page()
        page.on("console", lambda message: print("console:", message.text))
        page.on("pageerror", lambda error: print("page:", error))
        yield PlaywrightDriver(page)
        page.close()
    except Error as error:
        raise Refused(f"the browser ended the page: {error.message}") from error


class PlaywrightDriver:
    """A page of a Chromium that Playwright drives."""

    def __init__(self, page: Page) -> None:
        assert page.context.browser is not None
        self._page = page
        self._browser = page.context.browser

    @property
    def browser(self) -> str:
        return f"Chromium {self._browser.version}"

    def open(self, address: str) -> None:
        self._page.goto(address)

    def run(self, job: Mapping[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = self._page.evaluate("job => window.check(job)", job)
        return result

    def memory(self) -> Mapping[str, int]:
        session = self._browser.new_browser_cdp_session()
        processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
        session.detach()
        peaks: dict[str, int] = {}
        for process in processes:
            kind, peak = process["type"].lower(), child.peak_memory_of(process["id"]) or 0
            if peak and kind in ("renderer", "gpu"):
                peaks[kind] = max(peaks.get(kind, 0), peak)
        return peaks


def threads_here(client: Client) -> int:
    """The number of WASM threads: onnxruntime-web uses at most 4 by default."""
    return 1 if client.wasm_alone else min(4, os.cpu_count() or 1)


class Steps:
    """Makes a page run the ``parts`` of a served model, step by step, and adds to a report.

    The ``paths``, by default the client's, say how each provider is run. A ``report`` can come from
    another page with the same model. If the page or a provider fails, a `Refused` names the part
    and the provider.
    """

    def __init__(
        self,
        driver: Driver,
        site: Site,
        model: ServedModel,
        threads: int,
        report: dict[str, Any] | None = None,
        paths: Sequence[RuntimePath] = (),
    ) -> None:
        self.driver = driver
        self._paths = {path.provider: path for path in paths or model.client.paths}
        self.site = site
        self.model = model
        self.threads = threads
        empty: dict[str, Any] = {"threads": threads, "providers": {}, "memory": {}, "load_ms": {}}
        self.report = empty if report is None else report
        self._provider: WebProvider = "wasm"  # nothing runs without WASM
        self._graph: str | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        """The graphs that the page loads."""
        return self.model.client.graphs

    @property
    def name(self) -> str:
        """The page's path on the server."""
        return self.model.client.page

    def open(self) -> None:
        """Open the page and load its graphs; if that fails, a `Refused` names the file."""
        self.report["browser"] = self.driver.browser
        self.driver.open(f"{self.site.address}/{self.name}")
        environment = self._step("open the page", "environment")
        self.report["isolated"] = environment["isolated"]
        self.environment = environment
        self.adapter = environment["adapter"]
        for part in self.parts:
            self._graph = part
            loaded = self._step(f"{part}: load", "load", part=part)
            self.report["load_ms"].setdefault(part, loaded["milliseconds"])

    def refuse(self, reason: str) -> None:
        """Note in the report that the current provider failed."""
        self._of_provider()["refused"] = {"words": reason, "graph": self._graph}

    def _of_provider(self) -> dict[str, Any]:
        """The report's figures of the current provider."""
        figures: dict[str, Any] = self.report["providers"].setdefault(self._provider, {})
        return figures

    def _figures(self) -> dict[str, Any]:
        """The figures of this page on the current provider."""
        return self._of_provider()

    def _step(self, what: str, step: str, **arguments: Any) -> Any:
        print(what, flush=True)
        result = self.driver.run({"step": step, **arguments})
        self._measure_memory()
        if "error" in result:
            raise Refused(f"{what}: {result['error']}")
        return result

    def _start(self, provider: WebProvider) -> None:
        self._provider, self._graph = provider, None
        path = self._paths[provider]
        started = self._step(
            f"start onnxruntime-web on {provider}",
            "start",
            provider=provider,
            threads=self.threads,
            nothing=list(_nothing()),
            bundle=path.bundle,
            layout=path.layout,
        )
        client = f"{started['client']}, " if "client" in started else ""
        self.report.setdefault("runtime", f"{client}onnxruntime-web {started['version']}")
        self._of_provider().update(build=path.build, layout=path.layout)
        self._figures()["start_ms"] = started["milliseconds"]

    def _step_of(self, part: str, what: str, step: str, **arguments: Any) -> Any:
        """Run a step with one graph on the current provider."""
        self._graph = part
        what = f"{part} on {self._provider}: {what}"
        return self._step(what, step, part=part, provider=self._provider, **arguments)

    def _create(self, part: str) -> None:
        created = self._step_of(part, "create its session", "create")
        self._figures()[part] = {"create_ms": created["milliseconds"]}

    def _place(self, part: str) -> None:
        """Note which provider runs each node of a graph: see ``proof/node-placement.js``."""
        try:
            placement = self._step_of(part, "find its nodes", "nodes")["placement"]
        except Refused as refusal:  # the session was made only for its log
            print(refusal)
            placement = None
        self._of_provider().setdefault("placement", {})[part] = placement

    def _measure_memory(self) -> None:
        """Note the peak memory so far of the page's process and of the GPU's process."""
        memory = self.report["memory"]
        for kind, peak in self.driver.memory().items():
            memory[kind] = max(memory.get(kind, 0), peak)


def _nothing() -> bytes:
    """The smallest model, which returns its input."""
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    node = helper.make_node("Identity", ["x"], ["y"])
    graph = helper.make_graph([node], "nothing", values[:1], values[1:])
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    return model.SerializeToString()  # type: ignore[no-any-return]
