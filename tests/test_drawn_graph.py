"""`doit graph` draws the stages of a model, and marks the stale ones."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from project import Project

from tasks.commands.graph import BOX, COLUMN, drawing, in_words, places
from tasks.commands.status import Stage

CONFIGURATION = (
    '[build]\ndeploy = "app"\n[browser]\nenabled = false\n[fidelity]\nimages = {images}\n'
    '[models.tiny]\nmodel_type = "sam2_hiera_tiny"\nurl = "synthetic:"\n'
    'variants = ["fp32", "q8"]\n'
)
SVG = "{http://www.w3.org/2000/svg}"


def boxes(picture: Path) -> dict[str, list[str]]:
    """The tooltip, the time and the state in each box, by its name."""
    root = ElementTree.fromstring(picture.read_text())
    groups = [[each.text or "" for each in group] for group in root.iter(f"{SVG}g")]
    return {name: [title, time, state] for title, _, name, time, state in groups}


def test_each_stage_has_a_box_with_its_time_and_the_reason_if_stale(project: Project) -> None:
    project.configure(CONFIGURATION.format(images=8))
    assert "No model was ever built" in project.doit("graph").output
    assert project.build("deploy:tiny").status == 0
    outcome = project.doit("graph")
    assert (outcome.status, outcome.output.strip()) == (0, "build/graph/tiny.svg")
    picture = project.root / "build/graph/tiny.svg"
    drawn = boxes(picture)
    assert drawn.keys() == {
        *("checkpoint", "export", "simplify", "reference", "fidelity fp32", "variant q8"),
        *("fidelity q8", "verify", "deploy"),
    }
    for _, time, state in drawn.values():
        assert re.fullmatch(r"\d+\.\d s", time)
        assert state == "fresh"
    project.configure(CONFIGURATION.format(images=9))
    assert project.doit("graph", "tiny").status == 0
    assert "tiny: 4 of 9 stages are stale" in picture.read_text()
    stale = {name for name, (_, _, state) in boxes(picture).items() if state != "fresh"}
    assert stale == {"reference", "fidelity fp32", "fidelity q8", "deploy"}
    assert boxes(picture)["reference"][0] == "reference:tiny: stale: count was 8, is 9"
    outcome = project.doit("graph", "other")
    assert outcome.status == 3
    assert "there is no model other. Models: tiny." in outcome.output


LINKS = {
    "checkpoint": [],
    "export": ["checkpoint"],
    "simplify": ["export"],
    "variant": ["simplify"],
    "reference": ["checkpoint"],
    "fidelity": ["variant", "reference"],
    "verify": ["simplify"],
    "deploy": ["fidelity", "verify"],
}


def test_boxes_have_distinct_places_and_lines_lead_to_the_right() -> None:
    placed, lines = places(LINKS)
    assert len(set(placed.values())) == len(placed)
    assert {(line[0], line[-1]) for line in lines} == {
        (below, name) for name, needed in LINKS.items() for below in needed
    }
    for line in lines:
        columns = [placed[step].column for step in line]
        assert columns == list(range(columns[0], columns[-1] + 1))


@pytest.mark.parametrize(("seconds", "words"), [(2.25, "2.2 s"), (122.4, "2 min 2 s")])
def test_a_time_is_formatted_in_seconds_or_minutes(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_text_is_escaped_and_an_unbuilt_stage_is_not_marked_stale() -> None:
    states = {
        "a:m": Stage("a:m", False, "x < y & z", 0),
        "b:m": Stage("b:m", False, "never built", 0),
    }
    text = drawing("m", {"a:m": [], "b:m": ["a:m"]}, states, {"a:m": None, "b:m": None})
    root = ElementTree.fromstring(text)
    assert float(root.attrib["width"]) == 2 * 20 + COLUMN + BOX
    assert "stale: x &lt; y &amp; z" in text
    assert ">never built<" in text
