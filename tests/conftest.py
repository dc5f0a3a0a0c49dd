from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in child processes; before torch

from project import ROOT, Project
from server import FileServer

from tasks import packages as stage
from tasks.config.checks import BrowserCheck
from tasks.web import browsers, packages

# The files whose slow tests take longest, the longest first: a worker that started one of them last
# would leave the other workers idle.
LONGEST = (
    *("test_demo", "test_whole_builds", "test_page_tracking", "test_page", "test_clients"),
    *("test_transformers", "test_cluster", "test_architecture"),
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--everything", action="store_true", help="run the slow tests too")
    parser.addoption("--nightly", action="store_true", help="run all tests, without a shared cache")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect slow and nightly tests, unless they are requested, named or chosen by -m.

    Fast tests run first, because they show most mistakes; then the tests that take longest.

    With several workers (`pytest -n 2 --dist loadgroup`), one worker runs all fast tests of a file
    and one all slow tests, so that shared fixtures are built once. A file can set its own group.
    """

    def is_slow(item: pytest.Item) -> bool:
        return item.get_closest_marker("slow") is not None

    def is_left_out(item: pytest.Item) -> bool:
        if item.get_closest_marker("nightly"):
            return not config.getoption("--nightly")
        return is_slow(item) and not config.getoption("--everything")

    def place(item: pytest.Item) -> tuple[bool, int]:
        long = is_slow(item) and item.path.stem in LONGEST
        return is_slow(item), LONGEST.index(item.path.stem) if long else len(LONGEST)

    named = any("::" in argument for argument in config.invocation_params.args)
    if not (config.getoption("--nightly") or config.getoption("-m") or named):
        config.hook.pytest_deselected(items=list(filter(is_left_out, items)))
        items[:] = [item for item in items if not is_left_out(item)]
    items.sort(key=place)
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            group = f"{item.path.stem}-{'slow' if is_slow(item) else 'fast'}"
            item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def shared_server() -> Iterator[FileServer]:
    server = FileServer()
    yield server
    server.close()


@pytest.fixture
def server(shared_server: FileServer) -> FileServer:
    """A server on loopback, without files."""
    shared_server.reset()
    return shared_server


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A copy of the project whose heavy child processes are replaced by cheap ones."""
    return Project(tmp_path / "project", cheap=True)


def give_up(reason: str) -> None:
    """Skip a test because this machine lacks something; in CI, fail it."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


@pytest.fixture(scope="session")
def npm_packages(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The npm packages, installed as the build installs them, by only one of several workers."""
    with (tmp_path_factory.getbasetemp().parent / "npm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not packages.are_installed():
            stage.install(required=False, work=None)  # type: ignore[arg-type]
    if not packages.are_installed():
        give_up("needs the packages of npm in web/")


@pytest.fixture(scope="session")
def executable(npm_packages: None) -> str | None:
    """The executable of a browser; None is Playwright's own browser."""
    from playwright.sync_api import expect

    found = browsers.find(BrowserCheck())
    if found.missing:
        give_up(f"needs a browser: {found.missing}")
    expect.set_options(timeout=30_000)  # a machine may be busy
    return found.executable


@pytest.fixture(scope="module", name="chromium")
def launched(executable: str | None) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def video_model(executable: str | None, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Synthetic weights of SAM 2.1 tiny for small images, with tracking graphs: built, proven in
    the browser and deployed.
    """
    project = Project(tmp_path_factory.mktemp("video") / "project", cheap=False)
    (project.root / "web").symlink_to(ROOT / "web")
    project.configure(
        f'[build]\ndeploy = "{project.root / "public/onnx-models/sam"}"\n'
        "[browser]\nenabled = true\n"
        '[models.tiny]\nmodel_type = "sam2.1_hiera_tiny"\nurl = "synthetic:?seed=1"\n'
        "image_size = 256\nvideo = true\n"
    )
    outcome = project.build()
    assert outcome.status == 0, outcome.output
    return project


@pytest.fixture(scope="session")
def demo(executable: str | None, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Synthetic weights of the demo's architecture for small images, built, proven in the browser
    and deployed.
    """
    project = Project(tmp_path_factory.mktemp("browser") / "project", cheap=False)
    (project.root / "web").symlink_to(ROOT / "web")
    architecture = (ROOT / "demo/sam2_demo.yaml").read_text()
    assert "image_size: 1024" in architecture
    (project.root / "small.yaml").write_text(
        architecture.replace("image_size: 1024", "image_size: 256")
    )
    project.configure(
        f'[build]\ndeploy = "{project.root / "public"}"\n[browser]\nenabled = true\n'
        "webgpu = false\n"
        f'[models.demo]\nconfig = "{project.root}/small.yaml"\nurl = "synthetic:"\n'
    )
    outcome = project.build("deploy:demo")
    assert outcome.status == 0, outcome.output
    assert "browser:demo" in outcome.ran
    return project
