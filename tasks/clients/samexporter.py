"""samexporter's own inference, whose names and shapes the others took up."""

from __future__ import annotations

from tasks.clients.client import SAMEXPORTER_DECODER, SAMEXPORTER_ENCODER, Client

CLIENT = Client(
    name="samexporter",
    version="0.5.0",
    encoder=SAMEXPORTER_ENCODER,
    decoder=SAMEXPORTER_DECODER,
)
