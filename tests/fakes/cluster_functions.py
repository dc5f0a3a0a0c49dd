"""Functions that the stages of `cluster_dodo` run in children, on a worker or locally."""

import os
import sys
import threading
import time
from pathlib import Path

from tasks.system.errors import StageError


def make(destination):
    """Record which process started this one: a worker, or the build."""
    print("making it")
    Path(destination).write_text(f"{os.getppid()} {sorted(os.environ)}")
    return {"started_by": os.getppid(), "heavy": sorted({"distributed"} & set(sys.modules))}


def double(destination, source):
    """Read the output of another stage, which can be in another place by now."""
    print(f"reading {source}")
    Path(destination).write_text(2 * Path(source).read_text())
    return {"started_by": os.getppid()}


def refuse(destination):
    raise StageError("expected 1, found 2")


def hold(destination, fifo, once=None):
    """Write half a file, open the FIFO and wait to be killed; the second time, write it all."""
    if once is not None and os.path.exists(once):
        return make(destination)
    Path(destination).write_text("half")
    if once is not None:
        Path(once).write_text(str(os.getppid()))
    with Path(fifo).open("w"):
        threading.Event().wait()
    raise AssertionError("nobody waits for ever")


def alone(destination, folder):
    """Run for a while, and fail if the worker runs another of these meanwhile."""
    place = Path(folder) / str(os.getppid())
    place.touch(exist_ok=False)
    time.sleep(0.2)
    place.unlink()
    return make(destination)


def work(destination, seconds):
    time.sleep(seconds)
    return make(destination)
