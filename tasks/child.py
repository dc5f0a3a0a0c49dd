"""Runs the heavy part of a stage in a process of its own, so that its memory goes back.

The child is ``python -m tasks.child module:function``. It reads its arguments as JSON from
standard input, which stays open as a lifeline: when the build dies, even by ``kill -9``, the
child sees the end of its input and ends too. Whatever it prints goes to a log file.
"""

from __future__ import annotations

import errno
import functools
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, NoReturn, ParamSpec

from doit.exceptions import TaskFailed

PROJECT = Path(__file__).resolve().parent.parent

P = ParamSpec("P")


class StageError(Exception):
    """A failure a person can act on; its text is shown as it is, without a traceback."""


def action(function: Callable[P, dict[str, Any]]) -> Callable[P, dict[str, Any] | TaskFailed]:
    """Make a function doit's action: a `StageError` or a full disk becomes a failed task."""

    @functools.wraps(function)
    def run_action(*args: P.args, **kwargs: P.kwargs) -> dict[str, Any] | TaskFailed:
        try:
            return function(*args, **kwargs)
        except StageError as error:
            return TaskFailed(str(error))
        except OSError as error:
            if error.errno not in (
                errno.ENOSPC,
                errno.EDQUOT,
                errno.EFBIG,
                errno.EACCES,
                errno.EROFS,
            ):
                raise
            where = f" ({error.filename})" if error.filename else ""
            return TaskFailed(
                f"{error.strerror}{where}. Nothing was half-written under a final name: "
                "make room or give access, and run the same command again."
            )

    return run_action


def run(function: str, arguments: Mapping[str, Any], log: Path, verbose: bool) -> dict[str, Any]:
    """Call ``module:function(**arguments)`` in a child process.

    :param arguments: JSON values.
    :param log: gets everything the child prints; replaced at each call.
    :param verbose: show the child's output as well.
    :returns: the function's result (a JSON object) with ``peak_memory`` in bytes, if known.
    :raises StageError: as the function raised it, or saying how the child ended.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    outcome_path = log.with_suffix(f".{os.getpid()}.{threading.get_ident()}.json")
    command = [sys.executable, "-m", "tasks.child", function, str(outcome_path.absolute())]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")])),
        "PYTHONHASHSEED": "0",  # the same input gives the same bytes
        # glibc gives blocks of 4 MiB back to the system at once: large exports in 4.1 GiB, not 5.4.
        "MALLOC_MMAP_THRESHOLD_": str(4 << 20),
    }
    try:
        with log.open("wb") as log_file:
            # A session of its own: Ctrl-C reaches the build, which ends its child.
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if verbose else log_file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                assert process.stdin is not None
                _send(process.stdin, arguments)
                if verbose:
                    assert process.stdout is not None
                    _show(process.stdout, log_file)
                status = process.wait()
            finally:
                process.kill()
                process.wait()
        outcome = _read_outcome(outcome_path)
    finally:
        outcome_path.unlink(missing_ok=True)
    if outcome is not None and "result" in outcome:
        return {**outcome["result"], "peak_memory": outcome["peak_memory"]}
    raise StageError(_explain(outcome, status, log))


def _send(stdin: IO[bytes], arguments: Mapping[str, Any]) -> None:
    try:
        stdin.write(json.dumps(arguments).encode() + b"\n")
        stdin.flush()
    except BrokenPipeError:
        pass  # it ended before reading; its exit status and log say why


def _show(output: IO[bytes], log_file: IO[bytes]) -> None:
    for line in output:
        log_file.write(line)
        sys.stderr.write(line.decode(errors="replace"))


def _read_outcome(path: Path) -> dict[str, Any] | None:
    try:
        outcome = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return outcome if isinstance(outcome, dict) else None


def _explain(outcome: dict[str, Any] | None, status: int, log: Path) -> str:
    """Say why a child gave no result."""
    if outcome is not None and "error" in outcome:
        return f"{outcome['error']}\nLog: {log}"
    if outcome is not None and "crash" in outcome:
        return f"{outcome['crash']}\nThe whole traceback is in {log} (or run with -v 2)."
    if status == -signal.SIGKILL:
        return (
            "was killed by the system (signal 9), most often because memory ran out. Close other "
            f"programs, build without `-n`, or build a smaller model.\nLog: {log}"
        )
    how = f"signal {-status}" if status < 0 else f"exit status {status}"
    return f"ended without a result ({how}).\nLog: {log}"


def peak_memory_of(process: int | str) -> int | None:
    """The largest resident memory of a running process in bytes; None where it is not told."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        return None  # not Linux, or it has ended


def _peak_memory() -> int | None:
    """That of this process. On Linux ru_maxrss would be at least its parent's."""
    peak = peak_memory_of("self")
    if peak is not None:
        return peak
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def main(function: str, outcome_path: str) -> NoReturn:
    """Run one function and write its outcome to a file; see `run`."""
    arguments = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    module, name = function.split(":")
    outcome: dict[str, Any]
    try:
        outcome = {"result": getattr(importlib.import_module(module), name)(**arguments)}
    except StageError as error:
        outcome = {"error": str(error)}
    except BaseException as error:
        traceback.print_exc()
        outcome = {"crash": f"{type(error).__name__}: {error}"}
    outcome["peak_memory"] = _peak_memory()
    Path(outcome_path).write_text(json.dumps(outcome))
    sys.stdout.flush()
    sys.stderr.flush()
    # Skips the teardown of torch and onnxruntime, which takes time and has nothing to save.
    os._exit(0 if "result" in outcome else 1)


if __name__ == "__main__":
    # `python -m` runs this file as __main__; the stages raise the imported module's StageError.
    from tasks.child import main as imported_main

    imported_main(sys.argv[1], sys.argv[2])
