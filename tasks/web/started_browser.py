"""Starts any browser with a page's address; needs no driver.

The page requests its steps from the server and posts their results and its log (`serve` of
``web/page/proof/steps.js``). The browser's own output goes to this process's output.
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tasks.web.chromium import Refused
from tasks.web.programs import BrowserProgram

OPENING = 60  # seconds for a browser to open the page
POLL = 5  # seconds that a page waits for a step before it requests one again
_QUIT = 10  # seconds for a browser to end

# With these settings Firefox opens only the page and makes no other requests.
_FIREFOX_SETTINGS = {
    "app.normandy.enabled": False,
    "app.update.enabled": False,
    "browser.aboutwelcome.enabled": False,
    "browser.region.update.enabled": False,
    "browser.safebrowsing.downloads.remote.enabled": False,
    "browser.search.update": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.update.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "security.remote_settings.crlite_filters.enabled": False,
    "services.settings.server": "data:,",
    "toolkit.telemetry.reportingpolicy.firstRun": False,
}


class StepExchange:
    """Passes steps to a page that requests them, and the results back."""

    def __init__(self) -> None:
        self._steps: queue.Queue[Mapping[str, Any]] = queue.Queue()
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()

    def answer(self, body: bytes) -> bytes:
        """Store what a page posts (its last step's answer, or null); return the next step.

        Returns null if there is no next step for a while.
        """
        answer = json.loads(body)
        if answer is not None:
            self._answers.put(answer)
        try:
            return json.dumps(self._steps.get(timeout=POLL)).encode()
        except queue.Empty:
            return b"null"

    def put(self, step: Mapping[str, Any]) -> None:
        """Queue a step for the page."""
        self._steps.put(step)

    def take(self, seconds: float) -> dict[str, Any] | None:
        """The page's answer; None if it does not come in time."""
        try:
            return self._answers.get(timeout=seconds)
        except queue.Empty:
            return None


class StartedBrowser:
    """A `Driver` for a browser's page; each step may take ``limit`` seconds."""

    def __init__(
        self, program: BrowserProgram, profile: Path, exchange: StepExchange, limit: float
    ) -> None:
        self.browser = program.name
        self._program = program
        self._profile = profile.resolve()
        self._exchange = exchange
        self._limit = limit
        self._process: subprocess.Popen[bytes] | None = None
        self._display: subprocess.Popen[bytes] | None = None
        self._opened = False

    def open(self, address: str) -> None:
        """Start the browser with the page's address; `Refused` if it does not start."""
        self._profile.mkdir(parents=True)
        environment = {**os.environ, "HOME": str(self._profile)}
        if self._program.engine == "Firefox":
            settings = [
                f"user_pref({json.dumps(name)}, {json.dumps(value)});\n"
                for name, value in _FIREFOX_SETTINGS.items()
            ]
            (self._profile / "user.js").write_text("".join(settings))
            environment["MOZ_DISABLE_AUTO_SAFE_MODE"] = "1"
        if self._program.engine == "WebKit" and sys.platform == "linux":
            self._display, number = virtual_display()
            environment |= {"DISPLAY": f":{number}", "GDK_BACKEND": "x11"}
        command = self._program.command(self._profile, f"{address}?driver=server")
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stderr=subprocess.STDOUT,
                env=environment,
                preexec_fn=_end_with_parent,
            )
        except OSError as error:
            raise Refused(f"{command[0]} does not start: {error.strerror}") from error

    def run(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """Run a step and return its result; `Refused` if the browser ends or takes too long."""
        assert self._process is not None
        limit = self._limit if self._opened else min(self._limit, OPENING)
        self._exchange.put(job)
        end = time.monotonic() + limit
        while (answer := self._exchange.take(0.2)) is None:
            status = self._process.poll()
            if status is not None:
                raise Refused(f"{self.browser} ended with status {status}; the log has its output")
            if time.monotonic() > end:
                what = f"step {job['step']!r}" if self._opened else "opening the page"
                raise Refused(
                    f"{self.browser} has not answered for {limit:g} s: {what}; the log has its "
                    "output, and [browser] step_limit sets how long a step may take"
                )
        self._opened = True
        for line in answer["lines"]:
            print("console:", line)
        result: dict[str, Any] = answer["result"]
        return result

    def memory(self) -> Mapping[str, int]:
        """Nothing: each browser has different kinds of processes, so memory is not measured."""
        return {}

    def close(self) -> None:
        """End the browser."""
        self._exchange.put({"step": "close"})
        for process in filter(None, (self._process, self._display)):
            process.terminate()
            try:
                process.wait(_QUIT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self._profile, ignore_errors=True)


@contextmanager
def started(
    program: BrowserProgram, profile: Path, exchange: StepExchange, limit: float
) -> Iterator[StartedBrowser]:
    """A browser that starts when a page is opened, and ends with the context."""
    browser = StartedBrowser(program, profile, exchange, limit)
    try:
        yield browser
    finally:
        browser.close()


def virtual_display() -> tuple[subprocess.Popen[bytes], int]:
    """A virtual display, and its number; `Refused` if Xvfb is not installed."""
    executable = shutil.which("Xvfb")
    if executable is None:
        raise Refused("WebKitGTK needs a display: install Xvfb (Debian's package xvfb)")
    reading, writing = os.pipe()
    command = [executable, "-displayfd", str(writing), "-screen", "0", "1024x768x24", "-nolisten"]
    with os.fdopen(reading) as numbers:
        try:
            process = subprocess.Popen(
                [*command, "tcp"],
                pass_fds=[writing],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.STDOUT,
                preexec_fn=_end_with_parent,
            )
        finally:
            os.close(writing)
        number = numbers.readline()
    if not number.strip():
        raise Refused(f"{executable} ended with status {process.wait()}; the log has its output")
    return process, int(number)


def _end_with_parent() -> None:
    """Make Linux end this process when its parent ends, even if the parent is killed."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
