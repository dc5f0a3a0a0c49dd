"""Child processes: results, error messages, and no orphan that outlives a killed build."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import child_functions
from project import ROOT

from tasks.running import child, job
from tasks.system.errors import StageError


@pytest.fixture(autouse=True)
def functions_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests/fakes"))


def run(name: str, log: Path, **arguments: object) -> dict[str, object]:
    return child.run(f"child_functions:{name}", arguments, log, verbose=False)


def test_a_child_returns_its_result_with_its_peak_memory(tmp_path: Path) -> None:
    result = run("add", tmp_path / "log", a=2, b=3)
    assert result["sum"] == 5
    assert 1e6 < result["peak_memory"] < 1e9  # type: ignore[operator]


REQUEST = child_functions.Request(
    graphs={"encoder": child_functions.Graph(Path("a/encoder.onnx"))},
    attention="fused",
    sides=(256, 1024),
    names=(("image", 1.0),),
)


@pytest.mark.parametrize("request_", [REQUEST, dataclasses.replace(REQUEST, truth=Path("t.py"))])
def test_a_function_with_one_dataclass_parameter_receives_an_equal_value(
    tmp_path: Path, request_: child_functions.Request
) -> None:
    sent = child.as_json(request_)
    assert run("show_request", tmp_path / "log", **sent)["text"] == repr(request_)


def test_the_cluster_rewrites_paths_inside_a_dataclass(tmp_path: Path) -> None:
    sent = job.rebase_paths(child.as_json(REQUEST), "a", "b")
    received = run("show_request", tmp_path / "log", **sent)["text"]
    assert received == repr(REQUEST).replace("a/encoder.onnx", "b/encoder.onnx")


def test_an_unknown_field_of_a_dataclass_is_an_error(tmp_path: Path) -> None:
    sent = {**child.as_json(REQUEST), "another": 1}
    with pytest.raises(StageError, match="ClassValidationError: While structuring Request"):
        run("show_request", tmp_path / "log", **sent)


def test_the_omp_wait_policy_is_passive_unless_the_environment_sets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert run("wait_policy", tmp_path / "log")["policy"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert run("wait_policy", tmp_path / "log")["policy"] == "ACTIVE"


def test_the_output_of_a_child_goes_to_its_log(tmp_path: Path) -> None:
    run("add", tmp_path / "log", a=2, b=3)
    assert (tmp_path / "log").read_text() == "adding\n"
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_a_child_can_print_characters_that_the_terminal_encoding_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    run("show", tmp_path / "log", text="256 × 256 → masks")
    assert (tmp_path / "log").read_text(encoding="utf-8") == "256 × 256 → masks\n"


def test_verbose_also_prints_the_output_of_the_child(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    child.run("child_functions:add", {"a": 1, "b": 1}, tmp_path / "log", verbose=True)
    assert capsys.readouterr().err == "adding\n"
    assert (tmp_path / "log").read_text() == "adding\n"


@pytest.mark.parametrize("verbose", [False, True])
def test_a_log_is_private_to_its_owner_even_if_a_public_one_existed(
    tmp_path: Path, verbose: bool
) -> None:
    log = tmp_path / "log"
    log.touch()
    log.chmod(0o644)
    child.run("child_functions:add", {"a": 1, "b": 1}, log, verbose=verbose)
    assert log.stat().st_mode & 0o777 == 0o600


def test_an_expected_error_keeps_its_message_and_names_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "import child_functions as c\ndef refuse():\n    print('refusing')\n    c.refuse()\n"
    (tmp_path / "talkative.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "tests/fakes"), str(tmp_path)]))
    with pytest.raises(StageError, match=r"^expected 1, found 2\nLog: .*log$"):
        child.run("talkative:refuse", {}, tmp_path / "log", verbose=False)
    assert (tmp_path / "log").read_text() == "refusing\n"


def test_an_empty_log_is_not_named(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"^expected 1, found 2$"):
        run("refuse", tmp_path / "log")


def test_an_unexpected_exception_is_named_and_its_traceback_is_in_the_log(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="ZeroDivisionError: a bug\nThe full traceback is in"):
        run("crash", tmp_path / "log")
    assert "Traceback" in (tmp_path / "log").read_text()


def test_a_child_killed_by_the_system_is_reported_as_out_of_memory(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"signal 9.*memory"):
        run("kill_itself", tmp_path / "log")


def test_a_child_ends_when_its_build_is_killed(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    code = (
        "from pathlib import Path; from tasks.running import child; "
        f"child.run('child_functions:hold', {{'fifo': {str(fifo)!r}}}, "
        f"Path({str(tmp_path / 'log')!r}), False)"
    )
    build = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    with fifo.open() as held_by_the_child:
        build.send_signal(signal.SIGKILL)
        build.wait()
        assert held_by_the_child.read() == ""  # returns only once the child is gone


def test_a_full_disk_in_a_child_is_reported(tmp_path: Path) -> None:
    # A limit on file size makes the kernel refuse a write halfway, as a full disk does.
    code = (
        "from pathlib import Path; from tasks.running import child; "
        f"child.run('child_functions:fill', {{'path': {str(tmp_path / 'large')!r}}}, "
        f"Path({str(tmp_path / 'log')!r}), False)"
    )
    done = subprocess.run(
        ["prlimit", "--fsize=100000", sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "StageError: File too large" in done.stderr
    assert "Free some space or grant access" in done.stderr
    assert "without a result" not in done.stderr


def test_a_result_can_be_larger_than_the_pipe_buffer(tmp_path: Path) -> None:
    assert len(run("much", tmp_path / "log", size=1 << 20)["text"]) == 1 << 20  # type: ignore[arg-type]
