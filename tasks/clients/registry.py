"""The clients that a configuration can name. A further one is a module and a line here."""

from __future__ import annotations

from collections.abc import Mapping

from tasks.clients import anylabeling, nimbusimage, osam, samexporter, transformers_js
from tasks.clients.client import Client

CLIENTS: Mapping[str, Client] = {
    client.name: client
    for client in (
        samexporter.CLIENT,
        nimbusimage.CLIENT,
        anylabeling.CLIENT,
        transformers_js.CLIENT,
        osam.CLIENT,
    )
}


def client_by_name(name: str) -> Client:
    """The client that a stage's request names."""
    return CLIENTS[name]
