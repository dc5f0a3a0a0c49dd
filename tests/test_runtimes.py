"""Every kind of deployed file in the runtimes that its manifest names, each in its own process.

A kind is an opset, a precision, a format, a graph and the client's form of it. A runtime's
answers are compared with those of the installed onnxruntime for the same inputs.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from conftest import give_up
from numpy.typing import NDArray
from onnx import numpy_helper
from project import ROOT, Project, programs

from tasks.clients.contract import Precision
from tasks.config import parse
from tasks.inference.graph_file import tensors_of
from tasks.inference.preprocessing import MEAN, STD
from tasks.inference.prompts import natural_image
from tasks.proof import runtimes

pytestmark = pytest.mark.slow

CHILD = Path(__file__).with_name("runtime_child.py")
INSTALLED = version("onnxruntime")
SMALL = 256  # pixels of an image's side

CONFIGURATION = """
[build]
deploy = "public"
[browser]
enabled = false
[models.demo]
config = "ROOT/demo.yaml"
url = "demo/sam2_demo_video.pt"
folder = "sam2_demo"
clients = ["samexporter", "transformers.js"]
video = true
variants = ["fp32", "fp16", "q8", "q4", "q4f16"]
formats = ["onnx", "ort"]
[models.half]
config = "ROOT/demo.yaml"
url = "demo/sam2_demo_video.pt"
folder = "sam2_half"
client = "samexporter"
video = true
variants = ["half"]
[models.sam1]
model_type = "vit_t"
url = "synthetic:"
folder = "sam1"
client = "nimbusimage"
[models.opset17]
config = "ROOT/demo.yaml"
url = "demo/sam2_demo_video.pt"
folder = "sam2_opset17"
client = "samexporter"
opset = 17
variants = ["fp32", "fp16", "q8", "q4", "q4f16", "half"]
[models.opset18]
config = "ROOT/demo.yaml"
url = "demo/sam2_demo_video.pt"
folder = "sam2_opset18"
client = "samexporter"
opset = 18
[models.opset19]
config = "ROOT/demo.yaml"
url = "demo/sam2_demo_video.pt"
folder = "sam2_opset19"
client = "samexporter"
opset = 19
"""

# The largest difference of an output, relative to its largest magnitude. q8 quantizes values at run
# time, so that one value that is rounded differently moves all later ones: 0.04 was measured. With
# half, each runtime rounds its casts.
LIMITS: dict[Precision, float] = dict.fromkeys(runtimes.PRECISIONS, 1e-4) | {
    "q8": 0.08,
    "half": 0.03,
}

# Dimensions that a caller chooses: a click and a box's corners in each of two prompts.
FREE = {"num_prompts": 2, "points_batch": 2, "num_points": 3, "num_boxes": 0, "mask_batch": 1}


class Graph(NamedTuple):
    """A file, its precision, its manifest's runtimes, and files of inputs and right answers."""

    path: Path
    precision: Precision
    tried: dict[runtimes.Runtime, tuple[str, ...]]
    feeds: Path
    answers: Path

    def __str__(self) -> str:
        return str(self.path.relative_to(self.path.parents[2]))


def feeds_for(path: Path) -> dict[str, NDArray[Any]]:
    """An image, or random features with prompts, memories and pointers."""
    random = np.random.default_rng(0)
    feeds = {}
    for tensor in tensors_of(str(path)).inputs:
        name = tensor.name
        sizes = [each if isinstance(each, int) else FREE.get(each, 3) for each in tensor.shape]
        values: Any = random.standard_normal(sizes)
        if len(sizes) == 4 and sizes[1] == 3:
            values = ((natural_image(sizes[-1]) - MEAN) / STD).transpose(2, 0, 1)[None]
        elif "labels" in name:
            values = np.broadcast_to([2, 3, 1], sizes)
        elif "coords" in name or "points" in name:
            values = random.uniform(0, SMALL, sizes)
        elif name in ("has_mask_input", "multimask", "prompted"):
            values = np.ones(sizes)
        elif name == "orig_im_size":
            values = np.array([240, 320])
        elif "times" in name:
            values = np.arange(sizes[0])
        feeds[name] = values.astype(tensor.dtype)
    return feeds


def run(
    python: list[str], runtime: str, graphs: Iterable[tuple[Path, Path]], place: Path
) -> list[str]:
    """Run graphs with input files in one process; returns errors, writes ``<number>.npz`` each."""
    jobs = [
        {"graph": str(graph), "feeds": str(feeds), "answers": str(place / f"{number}.npz")}
        for number, (graph, feeds) in enumerate(graphs)
    ]
    (place / "jobs.json").write_text(json.dumps(jobs))
    command = [*python, str(CHILD), runtime, str(place / "jobs.json")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=place, check=False)
    assert done.returncode == 0, f"{runtime} ended with {done.returncode}: {done.stderr[-2000:]}"
    errors: list[str] = json.loads(done.stdout.splitlines()[-1])
    return errors


def difference(right: Path, answers: Path) -> float:
    """The largest of any output, relative to its magnitude; infinite if a value is not finite."""
    with np.load(right) as expected, np.load(answers) as actual:
        values = [(actual[name], expected[name]) for name in expected.files]
    if any(one.shape != other.shape or not np.isfinite(one).all() for one, other in values):
        return np.inf
    return max(float(np.abs(one - other).max() / np.abs(other).max()) for one, other in values)


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> list[Graph]:
    """A graph of every kind, with the answers of the installed onnxruntime."""
    place = tmp_path_factory.mktemp("runtimes")
    project = Project(place / "project", cheap=False)
    architecture = (ROOT / "demo/sam2_demo_video.yaml").read_text()
    assert "image_size: 1024" in architecture
    architecture = architecture.replace("image_size: 1024", f"image_size: {SMALL}")
    (project.root / "demo.yaml").write_text(
        architecture.replace("feat_sizes: [64, 64]", "feat_sizes: [16, 16]")
    )
    project.configure(CONFIGURATION.replace("ROOT", str(project.root)))
    outcome = project.build("-n", "2", "simplify", "variant")
    assert outcome.status == 0, outcome.output
    config = parse.load(project.root / "config/models.toml")
    made: dict[Path, Graph] = {}
    for target in config.targets:
        for variant in target.variants:
            for path in target.graph_files(variant).values():
                number, path = len(made), project.root / path
                kind = (target.source.opset, variant.precision, path.name)
                tried = runtimes.runs_on(*kind, INSTALLED)
                files = (place / f"feeds{number}.npz", place / f"{number}.npz")
                made.setdefault(path, Graph(path, variant.precision, tried, *files))
    for graph in made.values():
        np.savez(graph.feeds, **feeds_for(graph.path))
    every = list(made.values())
    errors = run([sys.executable], "onnxruntime", [(g.path, g.feeds) for g in every], place)
    assert {str(g): error for g, error in zip(every, errors, strict=True) if error} == {}
    return every


def python_with(runtime: str, wanted: str, place: Path) -> list[str]:
    """The command of a Python with a version of a runtime; skips the test if it is unavailable."""
    numpy = "numpy<2" if runtimes.newest([wanted, "1.19.0"]) != wanted else "numpy"
    command = ["uv", "run", "--no-project", "--python", "3.11", "--with", f"{runtime}=={wanted}"]
    command += ["--with", numpy, "python"]
    if shutil.which("uv") is None:
        give_up("needs uv")
    done = subprocess.run(
        [*command, "-c", f"import {runtime}"],
        capture_output=True,
        text=True,
        cwd=place,
        check=False,
    )
    if done.returncode:
        give_up(f"needs {runtime} {wanted}: {done.stderr.strip()[-300:]}")
    return command


@pytest.mark.parametrize(
    ("runtime", "wanted"),
    [
        *(
            ("onnxruntime", f"{each}.0")
            for each in sorted(
                {*runtimes.OPSETS.values(), *runtimes.PRECISIONS.values()}
                | {*runtimes.FORMATS.values()}
            )
        ),
        *runtimes.NEWEST.items(),
    ],
)
def test_every_kind_of_file_gives_the_same_answers_in_each_runtime_of_its_manifest(
    graphs: list[Graph], runtime: runtimes.Runtime, wanted: str, tmp_path: Path
) -> None:
    named = [each for each in graphs if wanted in each.tried.get(runtime, ())]
    assert named
    python = python_with(runtime, wanted, tmp_path)
    errors = run(python, runtime, [(each.path, each.feeds) for each in named], tmp_path)
    assert {str(each): error for each, error in zip(named, errors, strict=True) if error} == {}
    apart = {
        str(each): difference(each.answers, tmp_path / f"{number}.npz")
        for number, each in enumerate(named)
    }
    assert {
        name: each
        for (name, each), graph in zip(apart.items(), named, strict=True)
        if not each < LIMITS[graph.precision]
    } == {}


@pytest.mark.parametrize("precision", runtimes.PRECISIONS)
def test_a_file_with_its_largest_tensor_reversed_exceeds_the_limits(
    graphs: list[Graph], precision: Precision, tmp_path: Path
) -> None:
    graph = next(
        each
        for each in graphs
        if each.precision == precision and each.path.stem.startswith("decoder")
    )
    model = onnx.load(graph.path)
    largest = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    wrong = numpy_helper.to_array(largest)[::-1]
    largest.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(wrong), largest.name))
    onnx.save(model, tmp_path / "wrong.onnx")
    wrong_graph = [(tmp_path / "wrong.onnx", graph.feeds)]
    assert run([sys.executable], "onnxruntime", wrong_graph, tmp_path) == [""]
    assert difference(graph.answers, tmp_path / "0.npz") > LIMITS[precision]


# Runs the decoder of docs/use.md three times; prints the growth of the memory peak in all runs,
# relative to its growth in the first.
GROWTH = """
import numpy
feeds = dict(numpy.load("feeds.npz"))
def peak():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
before, peaks = peak(), []
for _ in range(3):
    decoder.run(None, feeds)
    peaks.append(peak() - before)
print(peaks[-1] / peaks[0])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's peak of memory")
@pytest.mark.parametrize(("pattern", "least", "most"), [(False, 0.99, 1.1), (True, 1.3, 3)])
def test_repeated_runs_of_many_prompts_need_no_more_memory_without_a_memory_pattern(
    graphs: list[Graph], pattern: bool, least: float, most: float, tmp_path: Path
) -> None:
    graph = next(each for each in graphs if each.path.name == "decoder.onnx")
    with np.load(graph.feeds) as feeds:
        many = {
            name: np.tile(values, (64, 1, 1)[: values.ndim]) if "point" in name else values
            for name, values in feeds.items()
        }
    np.savez(tmp_path / "feeds.npz", **many)
    (tmp_path / "sam2_demo").symlink_to(graph.path.parent)
    (program,) = programs("use.md", "Many prompts at once", "python")
    assert "options.enable_mem_pattern = False" in program
    program = program.replace("= False", f"= {pattern}")
    command = [sys.executable, "-c", program + GROWTH]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert least < float(done.stdout) < most
