"""Child processes: results, errors in words, and no orphan that outlives a killed build."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from project import ROOT

from tasks import child
from tasks.child import StageError


@pytest.fixture(autouse=True)
def functions_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests/fakes"))


def run(name: str, log: Path, **arguments: object) -> dict[str, object]:
    return child.run(f"child_functions:{name}", arguments, log, verbose=False)


def test_a_childs_result_comes_back_with_its_peak_memory(tmp_path: Path) -> None:
    result = run("add", tmp_path / "log", a=2, b=3)
    assert result["sum"] == 5
    assert 1e6 < result["peak_memory"] < 1e9  # type: ignore[operator]


def test_what_a_child_prints_is_in_its_log(tmp_path: Path) -> None:
    run("add", tmp_path / "log", a=2, b=3)
    assert (tmp_path / "log").read_text() == "adding\n"
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_verbose_shows_it_as_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    child.run("child_functions:add", {"a": 1, "b": 1}, tmp_path / "log", verbose=True)
    assert capsys.readouterr().err == "adding\n"
    assert (tmp_path / "log").read_text() == "adding\n"


def test_an_expected_error_keeps_its_words_and_names_the_log(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"expected 1, found 2\nLog: .*log"):
        run("refuse", tmp_path / "log")


def test_a_bug_is_named_and_its_traceback_is_in_the_log(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="ZeroDivisionError: a bug\nThe whole traceback is in"):
        run("crash", tmp_path / "log")
    assert "Traceback" in (tmp_path / "log").read_text()


def test_a_child_killed_by_the_system_is_told_as_lack_of_memory(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"signal 9.*memory"):
        run("kill_itself", tmp_path / "log")


def test_a_child_ends_when_its_build_is_killed(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    code = (
        "from pathlib import Path; from tasks import child; "
        f"child.run('child_functions:hold', {{'fifo': {str(fifo)!r}}}, "
        f"Path({str(tmp_path / 'log')!r}), False)"
    )
    build = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    with fifo.open() as held_by_the_child:
        build.send_signal(signal.SIGKILL)
        build.wait()
        assert held_by_the_child.read() == ""  # returns only once the child is gone
