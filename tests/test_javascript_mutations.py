"""Small mistakes in the page's scripts that feed the graphs: the scripts' tests must catch each."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import give_up
from project import ROOT


@dataclass(frozen=True)
class Mutation:
    """A mistake in a script: ``old``, which occurs exactly once, is replaced by ``new``."""

    name: str
    script: str
    old: str
    new: str

    @property
    def tests(self) -> str:
        """The test file that must catch the mistake."""
        return TESTS[self.script]


TESTS = {
    "shared/preprocessing.js": "preprocessing.test.js",
    "shared/feeds.js": "feeds.test.js",
    "shared/tracker.js": "tracker.test.js",
    "shared/memory-bank.js": "tracker.test.js",
    "frames/tracking-worker.js": "tracking-worker.test.js",
    "shared/model.js": "model.test.js",
    "shared/tracking-graphs.js": "model.test.js",
}

MUTATIONS = [
    Mutation(
        "x is scaled by the height", "shared/preprocessing.js", "x: x * scaleX", "x: x * scaleY"
    ),
    Mutation(
        "y is scaled by the width", "shared/preprocessing.js", "y: y * scaleY", "y: y * scaleX"
    ),
    Mutation(
        "a stretched image is scaled by its longer side",
        "shared/preprocessing.js",
        "[size / width, size / height]",
        "[size / width, size / width]",
    ),
    Mutation(
        "a padded image is scaled by its shorter side",
        "shared/preprocessing.js",
        "size / Math.max(width, height)",
        "size / Math.min(width, height)",
    ),
    Mutation(
        "an image on a canvas is scaled to cover it",
        "shared/preprocessing.js",
        "Math.min(size / width, canvas / height)",
        "Math.max(size / width, canvas / height)",
    ),
    Mutation(
        "blue comes first on a canvas",
        "shared/preprocessing.js",
        "rgba.subarray(from, from + 3)",
        "rgba.slice(from, from + 3).reverse()",
    ),
    Mutation(
        "a canvas is as wide as its image",
        "shared/preprocessing.js",
        "3 * (y * width + (pixel - y * row))",
        "3 * pixel",
    ),
    Mutation(
        "a canvas's width comes before its height",
        "shared/feeds.js",
        "[canvas, size]",
        "[size, canvas]",
    ),
    Mutation(
        "points are half a pixel off",
        "shared/preprocessing.js",
        "x: x * scaleX,",
        "x: (x + 0.5) * scaleX,",
    ),
    Mutation(
        "a box's corners are not sorted",
        "shared/preprocessing.js",
        "Math.min(left, right) * scaleX",
        "left * scaleX",
    ),
    Mutation(
        "a box's bottom is its top",
        "shared/preprocessing.js",
        "Math.max(top, bottom)",
        "Math.min(top, bottom)",
    ),
    Mutation(
        "mean and deviation are swapped",
        "shared/preprocessing.js",
        "(v - mean[channel]) / std[channel]",
        "(v - std[channel]) / mean[channel]",
    ),
    Mutation(
        "blue comes first",
        "shared/preprocessing.js",
        "let from = y * scaledWidth * 4 + channel",
        "let from = y * scaledWidth * 4 + 2 - channel",
    ),
    Mutation(
        "padding is black, normalized",
        "shared/preprocessing.js",
        "const start = (channel * size + y) * size\n",
        "const start = (channel * size + y) * size\ntensor.fill(values[0], start, start + size)\n",
    ),
    Mutation(
        "an image is padded on the left",
        "shared/preprocessing.js",
        "const start = (channel * size + y) * size\n",
        "const start = (channel * size + y) * size + size - scaledWidth\n",
    ),
    Mutation(
        "cells are sampled at their corners",
        "shared/preprocessing.js",
        "((i + 0.5) / count) * extent - 0.5",
        "(i / count) * extent",
    ),
    Mutation(
        "a mask is the part below the threshold",
        "shared/preprocessing.js",
        "> threshold",
        "< threshold",
    ),
    Mutation("a mask's threshold is 0", "shared/preprocessing.js", "> threshold", "> 0"),
    Mutation(
        "a mask covers the padding too",
        "shared/preprocessing.js",
        "(place.scaledHeight / place.size) * maskSize",
        "maskSize",
    ),
    Mutation(
        "the padding point is missing",
        "shared/feeds.js",
        "if (!box && manifest",
        "if (box && manifest",
    ),
    Mutation(
        "a padding point is added beside a box too",
        "shared/feeds.js",
        "if (!box && manifest",
        "if (manifest",
    ),
    Mutation(
        "a padding point is background", "shared/feeds.js", "labelOf.padding", "labelOf.background"
    ),
    Mutation(
        "foreground and background clicks are swapped",
        "shared/feeds.js",
        "foreground ? labelOf.foreground : labelOf.background",
        "foreground ? labelOf.background : labelOf.foreground",
    ),
    Mutation(
        "the labels of a box's corners are swapped",
        "shared/feeds.js",
        "labels.unshift(labelOf.box_top_left, labelOf.box_bottom_right)",
        "labels.unshift(labelOf.box_bottom_right, labelOf.box_top_left)",
    ),
    Mutation(
        "a box comes after the points",
        "shared/feeds.js",
        "coords.unshift(...box)",
        "coords.push(...box)",
    ),
    Mutation("`has_mask_input` is always 0", "shared/feeds.js", "[previous ? 1 : 0]", "[0]"),
    Mutation("`has_mask_input` is always 1", "shared/feeds.js", "[previous ? 1 : 0]", "[1]"),
    Mutation(
        "every prompt refines the first one's mask",
        "shared/feeds.js",
        "previous?.forEach((logits, index) => data.set(logits, index * size))",
        "previous?.forEach((_, index) => data.set(previous[0], index * size))",
    ),
    Mutation(
        "the image's width comes before its height",
        "shared/feeds.js",
        "[place.height, place.width]",
        "[place.width, place.height]",
    ),
    Mutation(
        "the mask with the lowest score is the best",
        "shared/feeds.js",
        "scores[i] > scores",
        "scores[i] < scores",
    ),
    Mutation(
        "the last of the ranked masks is the best",
        "shared/feeds.js",
        "return index\n  for",
        "return scores.length - 1\n  for",
    ),
    Mutation(
        "ranked masks are ranked again",
        "shared/feeds.js",
        "if (choice === 'ranked') return index\n",
        "",
    ),
    Mutation(
        "a prompt gets the mask of another prompt",
        "shared/feeds.js",
        "(prompt * dims[1] + index) * size",
        "(index * dims[0] + prompt) * size",
    ),
    Mutation(
        "answers are in reverse order",
        "shared/feeds.js",
        "concatenated(values.map((each) => each.data))",
        "concatenated(values.map((each) => each.data).reverse())",
    ),
    Mutation(
        "masks of the image's size are taken for logits",
        "shared/feeds.js",
        "values(maskOutput(manifest), 4)",
        "values(withRole(tensors, 'masks'), 4)",
    ),
    Mutation(
        "x is scaled by the frame's height",
        "shared/tracker.js",
        "(x / width) * size",
        "(x / height) * size",
    ),
    Mutation(
        "the labels of corners are swapped", "shared/tracker.js", "[2, 3] : []", "[3, 2] : []"
    ),
    Mutation(
        "a box comes after the points",
        "shared/tracker.js",
        "[...corners, ...points]",
        "[...points, ...corners]",
    ),
    Mutation(
        "a mask to refine is not announced",
        "shared/tracker.js",
        "Float32Array.of(mask ? 1 : 0)",
        "Float32Array.of(0)",
    ),
    Mutation(
        "a mask to refine is not limited",
        "shared/tracker.js",
        "before.lowResMasks.map(limited)",
        "before.lowResMasks",
    ),
    Mutation(
        "`multimask` is never requested",
        "shared/tracker.js",
        "Float32Array.of(several ? 1 : 0)",
        "Float32Array.of(0)",
    ),
    Mutation(
        "a memory is never marked as prompted",
        "shared/tracker.js",
        "Float32Array.of(prompted ? 1 : 0)",
        "Float32Array.of(0)",
    ),
    Mutation(
        "memories get a constant object score",
        "shared/tracker.js",
        "Float32Array.of(objectScore)",
        "Float32Array.of(1)",
    ),
    Mutation(
        "times of memories are in reverse order",
        "shared/tracker.js",
        "Int32Array.from(chosen.memories, ([, time]) => time)",
        "Int32Array.from(chosen.memories, ([, time]) => time).reverse()",
    ),
    Mutation(
        "memories are in reverse order",
        "shared/tracker.js",
        "memories: floats(concatenated(memories)",
        "memories: floats(concatenated(memories.reverse())",
    ),
    Mutation("ages are not divided", "shared/tracker.js", "age / reach)", "age)"),
    Mutation(
        "ages are divided by one more",
        "shared/tracker.js",
        "this.constants.max_pointers) - 1, 1)",
        "this.constants.max_pointers), 1)",
    ),
    Mutation(
        "a given mask gets features with memory",
        "shared/tracker.js",
        "this.decode(frame, given.image_embed_without_memory, {",
        "this.decode(frame, image_embed, {",
    ),
    Mutation(
        "a given mask is replaced by the decoder's",
        "shared/tracker.js",
        "lowResMasks: given.low_res_masks.data.slice(),",
        "",
    ),
    Mutation(
        "a correction ignores memories",
        "shared/tracker.js",
        "const embedding = corrects\n",
        "const embedding = !corrects\n",
    ),
    Mutation(
        "the direction is reversed", "shared/memory-bank.js", "reverse ? -1 : 1", "reverse ? 1 : -1"
    ),
    Mutation(
        "a memory's time is one off",
        "shared/memory-bank.js",
        "memories.push([before, age - 1])",
        "memories.push([before, age])",
    ),
    Mutation(
        "a prompted memory's time is the newest's",
        "shared/memory-bank.js",
        "(each) => [each, constants.memories - 1]",
        "(each) => [each, 0]",
    ),
    Mutation(
        "one memory too few",
        "shared/memory-bank.js",
        "age = constants.memories - 1; age > 0",
        "age = constants.memories - 2; age > 0",
    ),
    Mutation(
        "the stride is ignored",
        "shared/memory-bank.js",
        "const stride = constants.memory_stride",
        "const stride = 1",
    ),
    Mutation(
        "one pointer too few",
        "shared/memory-bank.js",
        "age < Math.min(frames",
        "age + 1 < Math.min(frames",
    ),
    Mutation(
        "a pointer's age is one off",
        "shared/memory-bank.js",
        "pointers.push([frame - back * age, age])",
        "pointers.push([frame - back * age, age - 1])",
    ),
    Mutation(
        "ages lose their sign",
        "shared/memory-bank.js",
        "signed_pointer_times ? age :",
        "signed_pointer_times ? Math.abs(age) :",
    ),
    Mutation(
        "pointers of later frames count",
        "shared/memory-bank.js",
        "if (age < 0 && constants.pointers_from_past_only) continue\n",
        "",
    ),
    Mutation(
        "all prompted frames are used",
        "shared/memory-bank.js",
        "limit === -1 || conditioning.length <= limit",
        "true",
    ),
    Mutation(
        "corrections are conditioning frames",
        "shared/memory-bank.js",
        "!this.corrects(frame) || always",
        "true || always",
    ),
    Mutation(
        "more points request three masks too",
        "shared/memory-bank.js",
        "&& points <= allowed[1]",
        "",
    ),
    Mutation(
        "a box's corners are not sorted",
        "frames/tracking-worker.js",
        "[Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)]",
        "[x0, y0, x1, y1]",
    ),
    Mutation(
        "labels are swapped",
        "frames/tracking-worker.js",
        "(foreground ? 1 : 0)",
        "(foreground ? 0 : 1)",
    ),
    Mutation(
        "all prompts of a run get the first masks",
        "shared/model.js",
        "previous.slice(start, start + atOnce)",
        "previous.slice(0, atOnce)",
    ),
    Mutation(
        "prompts of a run are those of the first",
        "shared/model.js",
        "prompts.slice(start, start + atOnce)",
        "prompts.slice(0, atOnce)",
    ),
    Mutation(
        "many prompts go to a decoder for one",
        "shared/model.js",
        "? prompts.length : 1",
        "? prompts.length : prompts.length",
    ),
    Mutation(
        "features have the names of the graph",
        "shared/model.js",
        "[role, values[name]]",
        "[name, values[name]]",
    ),
    Mutation(
        "inputs are fed by position",
        "shared/tracking-graphs.js",
        "feeds[name]\n",
        "Object.values(feeds)[made.inputNames.indexOf(name)]\n",
    ),
]


@pytest.fixture(scope="module")
def node() -> str:
    found = shutil.which("node")
    if found is None:
        give_up("needs Node.js")
    assert found
    return found


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the page's scripts and their tests."""
    folder = tmp_path_factory.mktemp("mutations") / "web"
    folder.mkdir()
    shutil.copy(ROOT / "web/package.json", folder)
    for name in ("page", "test"):
        shutil.copytree(ROOT / "web" / name, folder / name)
    return folder


@pytest.fixture
def mutated(scripts: Path, mutation: Mutation) -> Iterator[Path]:
    path = scripts / "page" / mutation.script
    text = path.read_text(encoding="utf-8")
    assert text.count(mutation.old) == 1, (
        f"{mutation.old!r} occurs {text.count(mutation.old)} times"
    )
    path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
    yield scripts
    path.write_text(text, encoding="utf-8")


def run(node: str, tests: Path) -> subprocess.CompletedProcess[str]:
    """Run a test file in its own process."""
    return subprocess.run([node, str(tests)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda each: f"{each.script}: {each.name}")
def test_the_scripts_tests_catch_a_mutation(node: str, mutated: Path, mutation: Mutation) -> None:
    done = run(node, mutated / "test" / mutation.tests)
    assert done.returncode != 0, "the tests pass"
    # A script that cannot be parsed would fail any test.
    assert "SyntaxError" not in done.stdout + done.stderr


@pytest.mark.parametrize("tests", sorted(set(TESTS.values())))
def test_unmodified_scripts_pass(node: str, scripts: Path, tests: str) -> None:
    done = run(node, scripts / "test" / tests)
    assert done.returncode == 0, done.stdout + done.stderr
