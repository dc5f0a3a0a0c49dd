"""samexporter's own inference, with the names and shapes that other clients adopted."""

from __future__ import annotations

from tasks.clients.client import SAMEXPORTER_DECODER, SAMEXPORTER_ENCODER, Client

CLIENT = Client(
    name="samexporter",
    version="0.5.0",
    encoder=SAMEXPORTER_ENCODER,
    decoder=SAMEXPORTER_DECODER,
)
