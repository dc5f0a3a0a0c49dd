"""Browsers that can be started with a page's address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Engine = Literal["Chromium", "Firefox", "WebKit"]

# Names on the search path; then the paths of Debian's WebKitGTK and of applications on macOS.
PROGRAMS: Mapping[Engine, Sequence[str]] = {
    "Firefox": ("firefox-esr", "firefox", "/Applications/Firefox.app/Contents/MacOS/firefox"),
    "WebKit": (
        "MiniBrowser",
        "/usr/lib/x86_64-linux-gnu/webkit2gtk-4.1/MiniBrowser",
        "/usr/lib/aarch64-linux-gnu/webkit2gtk-4.1/MiniBrowser",
    ),
}


@dataclass(frozen=True)
class BrowserProgram:
    """A browser of this machine."""

    engine: Engine
    executable: str

    @property
    def name(self) -> str:
        """The name for people."""
        return f"{self.engine} ({Path(self.executable).name})"

    def command(self, profile: Path, address: str) -> list[str]:
        """The command that opens an address with a separate profile and without a window."""
        if self.engine == "Firefox":
            return [
                self.executable,
                "--headless",
                "--no-remote",
                "--profile",
                str(profile),
                address,
            ]
        if self.engine == "WebKit":
            return [self.executable, "--private", address]
        return [
            self.executable,
            "--headless",
            "--no-sandbox",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-dev-shm-usage",
            "--enable-unsafe-webgpu",
            "--log-level=3",
            f"--user-data-dir={profile}",
            address,
        ]


def engine_of(executable: str) -> Engine:
    """A program's engine, by its name; unknown programs get Chromium's options."""
    name = Path(executable).name.lower()
    if "firefox" in name:
        return "Firefox"
    return "WebKit" if name in ("minibrowser", "epiphany", "epiphany-browser") else "Chromium"
