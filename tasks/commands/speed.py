"""`doit speed:<model>`: measures the speed of all variants of a model in one run.

Times measured hours apart, on a machine with other work, cannot be compared. So variants take
turns, round by round, natively and in the browser; the result is the median of the rounds and
their spread. Target: ``speed.json``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tasks.building import code
from tasks.building.stage import Stage, Workspace, describe_peak, option
from tasks.clients.contract import MaskChoice, Precision, PromptChoice
from tasks.config.models import Target
from tasks.system.errors import StageError
from tasks.system.files import write_atomically
from tasks.system.versions import versions
from tasks.web import packages
from tasks.web.browsers import Browser

if TYPE_CHECKING:
    from doit.task import Task

    from tasks.clients.client import Client
    from tasks.web.chromium import ServedModel

PACKAGES = ("onnxruntime", "numpy", "pillow")
ROUNDS = 5


def declare(target: Target, browser: Browser) -> Stage:
    """The measurement of one model."""
    graphs = [path for each in target.built_variants for path in target.image_graphs(each).values()]
    return Stage(
        target.name,
        measure_speed,
        [target, browser],
        reads=[*graphs, *code.javascript(f"web/page/{target.client.page}")],
        writes=[target.speeds],
        inputs={
            "packages of npm": browser.packages,
            "browser": [target.browser, browser.missing],
            "webgpu": target.webgpu,
            "contract": target.client.as_json(),
            **versions(*PACKAGES),
        },
        up_to_date=[_has_as_many_rounds],
        after=["packages", f"verify:{target.name}"],
        on_demand=True,
        runs_here=True,  # a worker of a cluster would time another machine
        options=[option("rounds", "number of turns of each variant", ROUNDS)],
    )


def _has_as_many_rounds(task: Task, values: Mapping[str, Any]) -> bool:
    """False if the last run had another number of rounds."""
    return bool(values.get("rounds") == (task.options or {}).get("rounds"))


def measure_speed(target: Target, browser: Browser, work: Workspace, rounds: int) -> dict[str, Any]:
    """Measure in a child process, and write all times.

    :raises StageError: when a variant does not run natively.
    """
    from statistics import median

    if not target.client.encodes:
        raise StageError(
            f"{target.name} has only a decoder, and speed compares the times of encoders; "
            f"{target.report('browser')} has the decoder's times"
        )
    if rounds < 1:
        raise StageError(f"--rounds is {rounds}; expected a whole number above 0")
    in_browser = target.browser is not False and not browser.missing and packages.are_installed()
    request = SpeedRequest(
        variants={
            each.name: SpeedVariant(
                each.precision,
                {graph: str(path) for graph, path in target.image_graphs(each).items()},
                {graph: target.file_name(graph, each) for graph in target.graphs},
            )
            for each in target.built_variants
        },
        client=target.client.key,
        masks=target.masks,
        prompts=target.prompts,
        rounds=rounds,
        scratch=str(work.scratch),
        executable=browser.executable,
        in_browser=in_browser,
        webgpu=in_browser and target.webgpu,
    )
    result = work.run("tasks.commands.speed:measure", request)
    memory = {"peak_memory": result.pop("peak_memory")}
    write_atomically(target.speeds, json.dumps(result, indent=2) + "\n")
    texts = []
    for name, figures in result["variants"].items():
        times = ", ".join(
            f"{provider} {median(times['encoder_run_ms']):.0f} ms"
            for provider, times in figures.items()
            if "encoder_run_ms" in times
        )
        texts.append(f"{name}: {times}")
    summary = f"encoder, medians of {rounds} rounds: {'; '.join(texts)}{describe_peak(memory)}"
    return {"summary": summary, "rounds": rounds, **memory}


@dataclass(frozen=True)
class SpeedVariant:
    """A variant: the file of each graph, and the client's name for it, by the graph's name."""

    precision: Precision
    graphs: Mapping[str, str]
    names: Mapping[str, str]


@dataclass(frozen=True)
class SpeedRequest:
    """The variants that take turns, by name; ``in_browser`` runs them in the browser too.

    ``executable`` is the browser (None: Playwright's own); ``scratch`` a folder for served files.
    """

    variants: Mapping[str, SpeedVariant]
    client: str
    masks: MaskChoice
    prompts: PromptChoice
    rounds: int
    scratch: str
    executable: str | None
    in_browser: bool
    webgpu: bool


def measure(request: SpeedRequest) -> dict[str, Any]:
    """Time the variants in turns (runs in a child process).

    :returns: ``files`` with their hashes; ``machine``; ``date``, the day in UTC; ``rounds``; and
        for each of ``variants`` by provider (``native``, ``wasm``, ``webgpu`` on hardware) the
        times of each round in milliseconds, for creating a session and for running encoder and
        decoder. A provider that refuses a variant has an ``error``.
    """
    import os
    import platform
    from datetime import UTC, datetime

    from tasks.clients.registry import client_by_key
    from tasks.inference.prompts import natural_image
    from tasks.proof.binding import unchanged
    from tasks.web.chromium import ServedModel, launched

    client = client_by_key(request.client)
    models = {
        name: ServedModel(
            client, request.masks, request.prompts, each.precision, each.graphs, each.names
        )
        for name, each in request.variants.items()
    }
    image = natural_image(next(iter(models.values())).size)
    times: dict[str, dict[str, Times]] = {name: {} for name in models}
    adapter = None
    paths = {
        Path(path).name: path for each in request.variants.values() for path in each.graphs.values()
    }
    with unchanged(paths) as files:
        for number in range(request.rounds):
            print(f"round {number + 1} of {request.rounds}", flush=True)
            for name, each in request.variants.items():
                if each.precision == "half":
                    continue  # the CPU only emulates it
                _add(times[name], "native", run_natively(each.graphs, image, client))
        if request.in_browser:
            with launched(request.executable, request.webgpu) as browser:
                for number in range(request.rounds):
                    print(f"round {number + 1} of {request.rounds}, browser", flush=True)
                    for name, model in models.items():
                        figures = run_in_page(browser, model, image, request)
                        adapter = figures.pop("adapter", adapter)
                        for provider, measured in figures.items():
                            _add(times[name], provider, measured)
    return {
        "files": files,
        "machine": {
            "processor": _processor() or platform.machine(),
            "processors": os.cpu_count(),
            "system": platform.platform(),
            "adapter": adapter,
        },
        "date": datetime.now(UTC).date().isoformat(),
        "rounds": request.rounds,
        "variants": times,
    }


# The milliseconds of each round by name, or the error message of a provider.
Times = dict[str, Any]


def _add(all_rounds: dict[str, Times], provider: str, times: Mapping[str, Any]) -> None:
    """Add the times of a round."""
    into = all_rounds.setdefault(provider, {})
    for name, value in times.items():
        if name == "error":
            into[name] = value
        else:
            into.setdefault(name, []).append(round(value, 2))


def run_natively(graphs: Mapping[str, str], image: Any, client: Client) -> dict[str, float]:
    """One turn in onnxruntime on the CPU, with onnxruntime's defaults.

    Only the second run counts, because the first fills caches.
    """
    from statistics import median

    from tasks.inference.prompts import PROMPTS
    from tasks.inference.sessions import Decoder, Encoder

    encoder, encoder_created = timed(Encoder, graphs["encoder"], client, spinning=True)
    encoder.run(image)
    features, encoded = timed(encoder.run, image)
    place = encoder.place(image)
    del encoder
    decoder, decoder_created = timed(Decoder, graphs["decoder"], client, spinning=True)
    decoder.run(features, PROMPTS[:1], place)
    runs = [timed(decoder.run, features, PROMPTS[:1], place) for _ in range(5)]
    return {
        "encoder_create_ms": encoder_created,
        "encoder_run_ms": encoded,
        "decoder_create_ms": decoder_created,
        "decoder_run_ms": median(milliseconds for _, milliseconds in runs),
    }


T = TypeVar("T")


def timed(call: Callable[..., T], *arguments: Any, **options: Any) -> tuple[T, float]:
    """The result of a call, and its time in milliseconds."""
    start = time.perf_counter()
    result = call(*arguments, **options)
    return result, 1000 * (time.perf_counter() - start)


def run_in_page(
    browser: Any, model: ServedModel, image: Any, request: SpeedRequest
) -> dict[str, Any]:
    """One turn in a new page: on WASM, and on WebGPU if that is hardware."""
    from tasks.inference.prompts import PROMPTS
    from tasks.inference.sessions import PromptedImage
    from tasks.web import chromium
    from tasks.web.image_page import ImageRun

    prompted = PromptedImage(image, PROMPTS[:1], {})
    run: ImageRun | None = None
    with chromium.served(model, image, request.scratch) as address:
        try:
            with chromium.blank_page(browser) as page:
                run = ImageRun(page, address, model, prompted, chromium.threads_here(model.client))
                run.open()
                run.wasm(2, 5)
                if request.webgpu and run.adapter is not None and not run.adapter["software"]:
                    run.webgpu(True, 0, 2)
        except chromium.Refused as refusal:
            if run is None:
                raise StageError(str(refusal)) from refusal
            run.refuse(str(refusal))
    providers = run.report["providers"]
    figures: dict[str, Any] = {provider: _page_times(each) for provider, each in providers.items()}
    if "adapter" in providers.get("webgpu", {}):
        figures["adapter"] = providers["webgpu"]["adapter"]["name"]
    return figures


def _page_times(each: Mapping[str, Any]) -> dict[str, Any]:
    """A provider's times as `run_natively` names them."""
    from statistics import median

    if "refused" in each:
        return {"error": each["refused"]["words"]}
    if "unavailable" in each:
        return {"error": each["unavailable"]}
    return {
        "encoder_create_ms": each["encoder"]["create_ms"],
        "encoder_run_ms": each["encoder"]["run_ms"][-1],  # the first fills caches
        "decoder_create_ms": each["decoder"]["create_ms"],
        "decoder_run_ms": median(each["decoder"]["run_ms"]),
    }


def _processor() -> str | None:
    """The processor's name, if the system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else None
