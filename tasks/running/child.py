"""Runs the heavy part of a stage in a child process, whose memory is freed when it ends.

The child is ``python -m tasks.running.child module:function``. It reads its arguments as JSON from
standard input, which stays open as a lifeline: when the build dies, even by ``kill -9``, the
child reaches the end of its input and ends too. Its output goes to a log file; its result comes
back through a pipe, which works on a full disk too.

A function that takes one frozen dataclass gets it as a value: `as_json` serializes it, and the
annotation of the parameter gives the type to restore.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

from tasks.system import machine
from tasks.system.errors import StageError, disk_problem

if TYPE_CHECKING:
    from cattrs.preconf.json import JsonConverter

PROJECT = Path(__file__).resolve().parent.parent.parent

_FULL = 1 << 20  # a disk with fewer free bytes counts as full
_LOOK = 300  # milliseconds between checks whether the result is still wanted


class UnwantedError(Exception):
    """The result is no longer wanted, and the child was stopped."""


def run(
    function: str,
    arguments: Mapping[str, Any],
    log: Path,
    verbose: bool,
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    wanted: Callable[[], bool] | None = None,
) -> dict[str, Any]:
    """Call ``module:function(**arguments)`` in a child process.

    :param arguments: JSON values; for a function that takes one dataclass, its fields.
    :param log: the file for all output of the child, readable only by its owner; replaced each
        time.
    :param verbose: show the child's output as well.
    :param folder: the child's working directory; without it, this process's.
    :param environment: replaces this process's environment.
    :param wanted: called repeatedly; the child is stopped as soon as it returns False.
    :returns: the function's result (a JSON object) with ``peak_memory`` in bytes, ``cores``, the
        number that it kept busy, and ``processor``, the processor that ran it
        (`machine.processor`).
    :raises StageError: raised by the function, or with the way in which the child ended.
    :raises UnwantedError: when the result is no longer wanted.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ if environment is None else environment
    environment = {
        # Torch's threads would spin while they wait for one another. On a busy machine, as beside
        # another stage of `-n 2`, that takes five times as long and four times the processor time.
        "OMP_WAIT_POLICY": "PASSIVE",
        **environment,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(PROJECT), environment.get("PYTHONPATH")])),
        "PYTHONHASHSEED": "0",  # the same input gives the same bytes
        "PYTHONIOENCODING": "utf-8",  # for its log, independent of the terminal
        # glibc returns blocks of 4 MiB to the system at once: large exports in 4.1 GiB, not 5.4.
        "MALLOC_MMAP_THRESHOLD_": str(4 << 20),
    }
    reading, writing = os.pipe()
    log.unlink(missing_ok=True)  # an abandoned attempt could still write to it
    log_handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(log_handle, "wb") as log_file, open(reading, "rb") as outcome_file:
        try:
            # In its own session: Ctrl-C reaches only the build, which stops its child.
            process = subprocess.Popen(
                [sys.executable, "-m", "tasks.running.child", function, str(writing)],
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if verbose else log_file,
                stderr=subprocess.STDOUT,
                pass_fds=[writing],
                start_new_session=True,
            )
        finally:
            os.close(writing)
        try:
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # it ended early; its exit status and log show why
                process.stdin.write(json.dumps(arguments).encode() + b"\n")
                process.stdin.flush()
            if verbose:
                shown = threading.Thread(target=_show, args=(process.stdout, log_file), daemon=True)
                shown.start()
            if wanted is not None:
                _await(outcome_file, wanted)
            text = outcome_file.read()  # ends when the child does
            status = process.wait()
            if verbose:
                shown.join()
        finally:
            process.kill()
            process.wait()
    try:
        outcome: dict[str, Any] = json.loads(text)
    except ValueError:  # empty, or cut off
        outcome = {}
    if "result" in outcome:
        return {**outcome.pop("result"), **outcome}
    raise StageError(_explain(outcome, status, log))


def as_json(request: object) -> dict[str, Any]:
    """The fields of a dataclass, or a dict, as JSON values: a path as text, a tuple as a list."""
    fields: dict[str, Any] = _converter().unstructure(request)
    return fields


def _converter() -> JsonConverter:
    # Imported only when a stage runs: it would take most of the time of an idle build.
    from cattrs.preconf.json import make_converter

    return make_converter(forbid_extra_keys=True)


def call(function: Callable[..., dict[str, Any]], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Call a function with JSON values: by keyword, or as the one dataclass that it takes."""
    parameters = list(inspect.signature(function).parameters.values())
    annotation = parameters[0].annotation if len(parameters) == 1 else None
    if isinstance(annotation, str):  # from a module with `from __future__ import annotations`
        annotation = eval(annotation, function.__globals__)
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return function(_converter().structure(arguments, annotation))
    return function(**arguments)


def _await(outcome: IO[bytes], wanted: Callable[[], bool]) -> None:
    """Wait until a child has written something, has ended, or is no longer wanted."""
    ended = select.poll()
    ended.register(outcome, select.POLLIN)
    while not ended.poll(_LOOK):
        if not wanted():
            raise UnwantedError


def _show(output: IO[bytes], log_file: IO[bytes]) -> None:
    for line in output:
        log_file.write(line)
        sys.stderr.write(line.decode(errors="replace"))


def _explain(outcome: Mapping[str, Any], status: int, log: Path) -> str:
    """Explain why a child gave no result."""
    named = f"\nLog: {log}" if log.stat().st_size else ""
    if "error" in outcome:
        return f"{outcome['error']}{named}"
    free = shutil.disk_usage(log.parent).free
    if free < _FULL:
        return (
            f"The disk is full: {log.parent.absolute()} has {free:,} bytes free. No target file is "
            "incomplete. Free some space, and run the same command again."
        )
    if "crash" in outcome:
        return f"{outcome['crash']}\nThe full traceback is in {log} (or run with -v 2)."
    if status == -signal.SIGKILL:
        return (
            "was killed by the system (signal 9), usually because memory ran out. Close other "
            f"programs, build without `-n`, or build a smaller model.{named}"
        )
    how = f"signal {-status}" if status < 0 else f"exit status {status}"
    return f"ended without a result ({how}).{named}"


def peak_memory_of(process: int | str) -> int | None:
    """The peak resident memory of a running process in bytes; None if it is unreadable."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        return None  # not Linux, or it has ended


def _own_peak_memory() -> int:
    """This process's peak memory. On Linux ru_maxrss would be at least its parent's."""
    import resource

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak_memory_of("self") or (largest if sys.platform == "darwin" else largest * 1024)


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def main(function: str, pipe: int) -> NoReturn:
    """Run one function and write its outcome to a pipe; see `run`."""
    start = time.monotonic()
    os.set_inheritable(pipe, False)  # its own child processes must not keep the pipe open
    arguments = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    module, name = function.split(":")
    outcome: dict[str, Any]
    try:
        outcome = {"result": call(getattr(importlib.import_module(module), name), arguments)}
    except StageError as error:
        outcome = {"error": str(error)}
    except BaseException as error:
        problem = disk_problem(error)
        outcome = {"error": problem} if problem else {"crash": f"{type(error).__name__}: {error}"}
        with suppress(OSError):  # the log is on the full disk
            traceback.print_exc()
    busy = sum(os.times()[:4])  # of this process, and of child processes that it waited for
    outcome["peak_memory"] = _own_peak_memory()
    outcome["cores"] = round(busy / (time.monotonic() - start), 1)
    outcome["processor"] = machine.processor()
    with open(pipe, "wb") as file:
        file.write(json.dumps(outcome).encode())
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    # Skips the teardown of torch and onnxruntime, which takes time and saves nothing.
    os._exit(0 if "result" in outcome else 1)


if __name__ == "__main__":
    # `python -m` runs this file as __main__; use the module object that others import.
    from tasks.running.child import main as imported_main

    imported_main(sys.argv[1], int(sys.argv[2]))
