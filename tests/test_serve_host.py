"""`doit serve --host`: which names it answers, and what it refuses."""

from __future__ import annotations

import http.client
import signal
from pathlib import Path

import pytest
from doit.exceptions import InvalidCommand
from playwright.sync_api import expect, sync_playwright
from project import Project

from tasks.commands.serve import reachable
from tasks.web import packages, server


def test_loopback_is_the_default_and_needs_no_name() -> None:
    assert reachable("127.0.0.1", []) == ["127.0.0.1"]


def test_a_host_is_reachable_by_its_address_and_by_the_given_names() -> None:
    assert reachable("10.0.0.7", ["lab42"]) == ["10.0.0.7", "lab42"]
    assert reachable("0.0.0.0", ["localhost", "lab42"]) == ["localhost", "lab42"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_serving_on_all_addresses_is_refused_without_a_name(host: str) -> None:
    with pytest.raises(InvalidCommand, match=r"Add --name for each host name"):
        reachable(host, [])


@pytest.mark.parametrize("name", ["*", "*.example", "http://lab42", "lab42:8000", "lab42/", ""])
def test_an_invalid_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidCommand, match="expected a host name or an address"):
        reachable("0.0.0.0", [name])


@pytest.fixture
def served(project: Project) -> Project:
    project.configure('[models.tiny]\nmodel_type = "sam2_hiera_tiny"\nurl = "synthetic:"\n')
    for package in packages.LIBRARIES:
        (project.root / "web/node_modules" / package).mkdir(parents=True, exist_ok=True)
    return project


def test_the_command_serves_only_the_given_names_on_the_host(served: Project) -> None:
    command = ("serve", "--host", "0.0.0.0", "--name", "lab42", "--name", "lab43")
    serving = served.start(*command)
    assert serving.stdout is not None
    address = serving.stdout.readline().split()[0]
    try:
        assert address.startswith("http://lab42:")
        port = int(address.rpartition(":")[2])
        for name, status in (("lab43", 200), ("localhost", 200), ("other.example", 400)):
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.request("GET", "/models.json", headers={"Host": f"{name}:{port}"})
            assert connection.getresponse().status == status
            connection.close()
    finally:
        serving.send_signal(signal.SIGINT)
        assert serving.wait() == 0


def test_an_address_of_another_machine_is_refused(served: Project) -> None:
    # 192.0.2.0/24 is reserved for documentation.
    outcome = served.doit("serve", "--host", "192.0.2.1")
    assert outcome.status == 3
    assert "--host 192.0.2.1 is not an address of this machine" in outcome.output


@pytest.mark.slow
def test_a_page_without_https_explains_what_to_do(executable: str | None, tmp_path: Path) -> None:
    documents = {"/models.json": lambda: ["one"]}
    app = server.application({"/": packages.PAGE}, documents, names=["lab42.example"])
    with server.serving(app) as address, sync_playwright() as playwright:
        port = address.rpartition(":")[2]
        browser = playwright.chromium.launch(
            executable_path=executable, args=["--host-resolver-rules=MAP lab42.example 127.0.0.1"]
        )
        page = browser.new_page()
        page.goto(f"http://lab42.example:{port}")
        expect(page.get_by_role("alert")).to_contain_text("only over https")
        expect(page.get_by_role("alert")).to_contain_text(f"ssh -L {port}:localhost:{port}")
        browser.close()
