from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from project import Project
from server import FileServer


@pytest.fixture
def server() -> Iterator[FileServer]:
    server = FileServer()
    yield server
    server.close()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A copy of the project whose heavy child processes are replaced by cheap ones."""
    return Project(tmp_path / "project", cheap=True)
