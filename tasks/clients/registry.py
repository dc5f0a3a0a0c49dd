"""The clients that a configuration can name. To add one, write a module and list it here."""

from __future__ import annotations

from collections.abc import Mapping

from tasks.clients import anylabeling, bioimageio, nimbusimage, osam, samexporter, transformers_js
from tasks.clients.client import Client, with_one_map
from tasks.clients.contract import Layout

_ALL = (
    samexporter.CLIENT,
    samexporter.FOR_SAM,
    with_one_map(samexporter.CLIENT),
    nimbusimage.CLIENT,
    nimbusimage.FOR_SAM,
    with_one_map(nimbusimage.CLIENT),
    anylabeling.CLIENT,
    anylabeling.FOR_SAM,
    transformers_js.CLIENT,
    transformers_js.FOR_SAM,
    osam.CLIENT,
    osam.FOR_SAM,
    bioimageio.CLIENT,
)

# The names of all programs.
CLIENT_NAMES = tuple(dict.fromkeys(client.name for client in _ALL))

# Each client by its key.
CLIENTS: Mapping[str, Client] = {client.key: client for client in _ALL}


def client_for(name: str, layout: Layout) -> Client | None:
    """A program's client for a layout; None if the program cannot read that layout."""
    return next((each for each in _ALL if (each.name, each.layout) == (name, layout)), None)


def clients_for(layout: Layout) -> list[str]:
    """The names of the programs that can read a layout."""
    return [each.name for each in _ALL if each.layout == layout]


def library_of(name: str) -> str:
    """The Hugging Face hub's name for the library that loads a program's files."""
    return next(each.library for each in _ALL if each.name == name)


def client_by_key(key: str) -> Client:
    """The client with a key, as a stage's request has it."""
    return CLIENTS[key]
