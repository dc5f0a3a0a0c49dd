"""Files that are put in place together, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tasks.system import files


def folder(tmp_path: Path) -> dict[str, Path]:
    """A folder with three files, one of them obsolete, and two staged beside it."""
    place, staging = tmp_path / "place", tmp_path / "place/.staged"
    (staging / "before").mkdir(parents=True)
    for name in ("encoder", "old", "manifest"):
        (place / name).write_text(f"{name} before")
    staged = {}
    for name in ("encoder", "decoder", "manifest"):
        staged[name] = staging / name
        staged[name].write_text(f"{name} now")
    return staged


def contents(tmp_path: Path) -> dict[str, str]:
    place = tmp_path / "place"
    return {path.name: path.read_text() for path in place.iterdir() if path.is_file()}


def replace(tmp_path: Path, staged: dict[str, Path]) -> None:
    place = tmp_path / "place"
    files.replace_together(place, staged, ["old"], place / ".staged/before")


def test_all_files_are_replaced_and_obsolete_ones_removed(tmp_path: Path) -> None:
    replace(tmp_path, folder(tmp_path))
    assert contents(tmp_path) == {
        name: f"{name} now" for name in ("encoder", "decoder", "manifest")
    }


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("failing", range(4))
def test_a_failed_rename_restores_every_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int, links: bool
) -> None:
    staged = folder(tmp_path)
    before = contents(tmp_path)
    rename, done = os.replace, []

    def failing_rename(source: Path, target: Path) -> None:
        done.append(target)
        if len(done) == failing + 1:
            raise OSError(5, "Input/output error", str(source), None, str(target))
        rename(source, target)

    def no_links(*args: object, **options: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "replace", failing_rename)
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(OSError, match="Input/output error"):
        replace(tmp_path, staged)
    assert contents(tmp_path) == before


def test_the_last_staged_file_is_renamed_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, order = os.replace, []

    def noted(source: Path, target: Path) -> None:
        order.append(Path(target).name)
        rename(source, target)

    monkeypatch.setattr(os, "replace", noted)
    replace(tmp_path, folder(tmp_path))
    assert order[-1] == "manifest"
    assert order.index("old") < order.index("manifest")


def test_a_failed_removal_is_reported_and_a_missing_file_counts_as_removed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder/below").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "file")
    inside = tmp_path / "file/inside"
    assert files.removal_problem(inside) == f"kept {inside}: Not a directory"
    for name in ("folder", "link", "gone"):
        assert files.removal_problem(tmp_path / name) is None
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_copy_and_hash_returns_the_hash_of_the_copy(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"weights" * 1_000_000)
    found = files.copy_and_hash(tmp_path / "source", tmp_path / "copy")
    assert found == files.sha256_of(tmp_path / "copy")
