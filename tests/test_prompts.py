"""The prompts of verify: every documented value of every input occurs, alone and beside others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import pytest

from tasks.clients.client import Client, PromptPart
from tasks.clients.contract import POINT_LABELS
from tasks.clients.registry import CLIENTS
from tasks.inference.preprocessing import Placement
from tasks.inference.prompts import Prompt, parts_of, prompt_tensors, runs_of_every_value

SQUARE = Placement(100, 100, 100, "stretch")
EVERY = [
    pytest.param(client, many, id=f"{name}, {'many prompts' if many else 'one prompt'} in a run")
    for name, client in CLIENTS.items()
    for many in (True, False)
    if many or "one" in client.prompts
]
every = pytest.mark.parametrize(("client", "many"), EVERY)


def prompts_of(client: Client, many: bool) -> list[Prompt]:
    return runs_of_every_value(client, many).prompts


def sends(client: Client, part: PromptPart) -> bool:
    return part not in client.never_sends


@every
def test_prompts_have_few_and_many_points(client: Client, many: bool) -> None:
    counts = {len(each.points) for each in prompts_of(client, many) if not each.box}
    assert counts >= ({1, 2, 5, 12} if sends(client, "point") else set())
    assert (0 in counts) == sends(client, "mask")


@every
def test_every_label_occurs_alone_and_with_others(client: Client, many: bool) -> None:
    prompts = prompts_of(client, many)
    unsent = set()
    if not sends(client, "point"):
        unsent |= {"background", "foreground"}
    if not sends(client, "padding label"):
        unsent |= {"padding"}
    if not sends(client, "corner label"):
        unsent |= {"box_top_left", "box_bottom_right"}
    for name, label in POINT_LABELS.items():
        labels = [each.labels for each in prompts if label in each.labels]
        assert bool(labels) == (name not in unsent), name
        if labels and (name != "padding" or sends(client, "mask")):
            assert any(set(each) == {label} for each in labels), name
        if labels:
            assert any(set(each) != {label} for each in labels), name


@every
def test_a_padding_point_comes_first_in_the_middle_and_last(client: Client, many: bool) -> None:
    places = {
        each.labels.index(-1) / (len(each.labels) - 1)
        for each in prompts_of(client, many)
        if -1 in each.labels and len(each.labels) > 2
    }
    assert places == ({0.0, 0.5, 1.0} if sends(client, "padding label") else set())


@every
def test_boxes_occur_alone_with_points_and_with_corners_outside(client: Client, many: bool) -> None:
    boxes = [each for each in prompts_of(client, many) if each.box]
    if not sends(client, "box"):
        assert boxes == []
        return
    assert {bool(each.points) for each in boxes} == {sends(client, "point"), False}
    assert any(
        min(each.box[:2]) < 0 and max(each.box[2:]) > 1 for each in boxes if each.box is not None
    )


@every
def test_masks_occur_alone_with_points_with_a_box_and_switched_off(
    client: Client, many: bool
) -> None:
    masks = [each for each in prompts_of(client, many) if each.refines]
    if not sends(client, "mask"):
        assert not masks
        return
    counting = [each for each in masks if each.mask_counts]
    assert any(not each.points and not each.box for each in counting)
    assert any(each.points and set(each.labels) == {-1} for each in counting)
    assert any(0 in each.labels or 1 in each.labels for each in counting)
    assert any(each.box for each in counting)
    assert any(not each.mask_counts and each.points for each in masks)


@every
def test_every_mask_comes_from_an_earlier_prompt(client: Client, many: bool) -> None:
    earlier: set[str] = set()
    for each in prompts_of(client, many):
        assert each.refines is None or each.refines in earlier
        assert each.name not in earlier
        earlier.add(each.name)


@every
def test_points_lie_on_the_border_outside_and_far_outside(client: Client, many: bool) -> None:
    values = {
        value for each in prompts_of(client, many) for point in each.points for value in point
    }
    if not sends(client, "point"):
        assert not values
        return
    assert {0, 1} <= values
    assert any(-0.5 < value < 0 for value in values)
    assert any(1 < value < 1.5 for value in values)
    assert min(values) < -3
    assert max(values) > 3


def runs(client: Client) -> Iterator[tuple[Prompt, ...]]:
    return iter(runs_of_every_value(client, many=True))


@pytest.mark.parametrize("client", CLIENTS.values(), ids=list(CLIENTS))
def test_prompts_of_different_lengths_share_a_run(client: Client) -> None:
    lengths = [{len(each.labels) for each in run} for run in runs(client)]
    assert any({1, 5, 12} <= each for each in lengths) == sends(
        client, "prompts of different lengths"
    )


@pytest.mark.parametrize("client", CLIENTS.values(), ids=list(CLIENTS))
def test_several_prompts_share_a_run_each_with_its_own_mask(client: Client) -> None:
    own = [{each.refines for each in run} for run in runs(client) if all(e.has_mask for e in run)]
    assert any(len(each) >= 3 for each in own) == sends(client, "mask")


@pytest.mark.parametrize("client", CLIENTS.values(), ids=list(CLIENTS))
def test_the_masks_of_a_run_are_all_used_or_all_switched_off(client: Client) -> None:
    for run in runs(client):
        assert len({(each.refines is None, each.mask_counts) for each in run}) == 1


def test_prompt_parts_that_a_client_never_sends_have_a_reason_and_are_not_sent() -> None:
    for name, client in CLIENTS.items():
        for part, reason in client.never_sends.items():
            assert part in get_args(PromptPart)
            assert reason, name
        for run in runs(client):
            assert not parts_of(run) & client.never_sends.keys(), name


def test_a_mask_alone_is_sent_without_points_or_with_the_padding_of_its_client() -> None:
    (alone,) = [
        each for each in prompts_of(CLIENTS["samexporter"], False) if each.name == "mask alone"
    ]
    assert prompt_tensors([alone], SQUARE, CLIENTS["samexporter"])["point_coords"].shape == (
        1,
        0,
        2,
    )
    padded = prompt_tensors([alone], SQUARE, CLIENTS["nimbusimage"])
    assert padded["point_labels"].tolist() == [[-1]]


def test_padding_points_are_not_sent_to_pytorch() -> None:
    prompt = Prompt("some", ((0.1, 0.2), (0.3, 0.4), (0.5, 0.6)), (-1, 1, -1))
    assert prompt.without_padding() == (((0.3, 0.4),), (1,))
