"""EdgeTAM's memory of earlier frames: the classes that the sam2 package lacks.

sam2 stores a frame's memory as a map. EdgeTAM's perceiver reads that map into latents: some attend
to the whole map, others to one window each, so that they form a grid. Frames attend to the latents,
an eighth of the tokens. Sources: the paper (EdgeTAM, arXiv 2501.07256) and its repository
(facebookresearch/EdgeTAM, ``sam2/modeling/perceiver.py`` and ``sam/transformer.py``), from which
the parameter names come.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from sam2.modeling.position_encoding import apply_rotary_enc
from sam2.modeling.sam.transformer import RoPEAttention
from sam2.sam2_video_predictor import SAM2VideoPredictor
from torch import Tensor, nn
from torch.nn import functional

from tasks.model.patching import Places, separated, sizes_of

# The number of latents that attend to the whole map, and of those on each side of the grid.
GLOBAL, GRID = 256, 16
LATENTS = GLOBAL + GRID * GRID


class Perceiver(nn.Module):
    """Reads a memory into latents (``PerceiverResampler`` in EdgeTAM).

    :param width: the channels of a memory and of its latents.
    """

    def __init__(self, width: int, depth: int = 2) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(GLOBAL, width))
        self.latents_2d = nn.Parameter(torch.randn(GRID * GRID, width))
        self.layers = nn.ModuleList(PerceiverLayer(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.count = LATENTS

    def forward(self, memory: Tensor, places: Places) -> Tensor:
        """The latents (B, L, D); the grid's latents come last, row by row.

        :param memory: maps (B, D, S, S), S a multiple of the grid's side.
        :param places: the encoding of the map's places, which the grid's latents do not use.
        """
        batch, width, side, _ = sizes_of(memory)
        window = side // GRID
        tokens = memory.permute(0, 2, 3, 1)
        windows = tokens.reshape(batch * GRID, window, GRID, window * width).permute(0, 2, 1, 3)
        windows = windows.reshape(batch, GRID * GRID, window * window, width)
        tokens = tokens.reshape(batch, side * side, width)
        whole, local = self.latents, self.latents_2d[:, None]
        for layer in self.layers:
            whole = layer(whole, tokens, places)
            local = layer(local, windows)
        latents = torch.cat([whole, local.reshape(batch, GRID * GRID, width)], dim=1)
        normed: Tensor = self.norm(latents)
        return normed


class PerceiverLayer(nn.Module):
    """Latents read features, then each other."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn = CrossAttention(width)
        self.ff = feed_forward(width)
        self.self_attn = SelfAttention(width)
        self.self_ff = feed_forward(width)

    def forward(self, latents: Tensor, features: Tensor, places: Places | None = None) -> Tensor:
        """Latents (…, N, D) after reading features (…, T, D); leading axes are broadcast."""
        latents = latents + self.attn(latents, features, places)
        latents = latents + self.ff(latents)
        latents = latents + self.self_attn(latents)
        result: Tensor = latents + self.self_ff(latents)
        return result


class CrossAttention(nn.Module):
    """Latents attend to features (``PerceiverAttention`` in EdgeTAM), with one head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_x, self.norm_latents = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_kv = nn.Linear(width, 2 * width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)

    def forward(self, latents: Tensor, features: Tensor, places: Places | None) -> Tensor:
        queries = self.to_q(self.norm_latents(latents))
        both = self.to_kv(self.norm_x(features))
        if places is not None:  # keys and values get the encoding of their places
            shape = sizes_of(both)
            side = int(places[0].shape[0])
            rows, columns = (torch.cat([each, each], dim=2) for each in places)
            both = (both.reshape(-1, side, side, shape[2]) + rows + columns).reshape(shape)
        mixed: Tensor = self.to_out(attend(queries, *halves(both)))
        return mixed


class SelfAttention(nn.Module):
    """Latents attend to each other (``Attention`` in EdgeTAM), or a single one to itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_kv = nn.Linear(width, 2 * width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)

    def forward(self, latents: Tensor) -> Tensor:
        normed = self.norm(latents)
        mixed: Tensor = self.to_out(attend(self.to_q(normed), *halves(self.to_kv(normed))))
        return mixed


def feed_forward(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, 4 * width, bias=False),
        nn.GELU(),
        nn.Linear(4 * width, width, bias=False),
    )


def halves(both: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values (…, D) from (…, 2 * D)."""
    keys, values = torch.split(both, int(both.shape[-1]) // 2, dim=-1)
    return keys, values


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """softmax(queries keysᵀ / √D) values, with one head."""
    share = 1 / math.sqrt(int(queries.shape[-1]))
    return torch.softmax((share * queries) @ keys.transpose(-2, -1), dim=-1) @ values


class LatentAttention(RoPEAttention):  # type: ignore[misc] # sam2 is not typed
    """An image's places attend to the latents of memories (``RoPEAttentionv2`` in EdgeTAM).

    Queries and the grid's keys are rotated by their place. The keys of the other latents and of
    pointers have no place.
    """

    def forward(self, q: Tensor, k: Tensor, v: Tensor, num_k_exclude_rope: int = 0) -> Tensor:
        """Attend with queries (B, S * S, C) to keys and values (B, M * L + P, D).

        :param num_k_exclude_rope: P, the number of pointer tokens at the end.
        """
        queries, keys, values = (
            self._separate_heads(project(each), self.num_heads)
            for project, each in ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v))
        )
        side = math.isqrt(q.shape[1])
        queries = rotated(queries, self.compute_cis(end_x=side, end_y=side))
        count = keys.shape[2] - num_k_exclude_rope
        latents, pointers = keys.split([count, num_k_exclude_rope], dim=2)
        memories = latents.reshape(-1, 1, LATENTS, keys.shape[3])
        whole, grid = memories.split([GLOBAL, GRID * GRID], dim=2)
        grid = rotated(grid, self.compute_cis(end_x=GRID, end_y=GRID))
        latents = torch.cat([whole, grid], dim=2).reshape(latents.shape)
        keys = torch.cat([latents, pointers], dim=2)
        mixed = functional.scaled_dot_product_attention(queries, keys, values)
        result: Tensor = self.out_proj(self._recombine_heads(mixed))
        return result


def rotated(tokens: Tensor, places: Tensor) -> Tensor:
    """Tokens (B, H, N, C) rotated by complex numbers (N, C / 2), as sam2 does."""
    result: Tensor = apply_rotary_enc(tokens, tokens[:, :, :0], places)[0]
    return result


class EdgeTamVideoPredictor(SAM2VideoPredictor):  # type: ignore[misc]
    """sam2's predictor, with a perceiver that reads memories before they are stored."""

    spatial_perceiver: Perceiver

    def _encode_new_memory(self, *args: Any, **kwargs: Any) -> tuple[Tensor, list[Tensor]]:
        """Latents and the encoding of their places, as maps (B, D, L, 1) for sam2."""
        memory, (encoding,) = super()._encode_new_memory(*args, **kwargs)
        latents = self.spatial_perceiver(memory, separated(encoding[:1]))
        places = places_of_latents(self)
        return (
            latents.transpose(1, 2)[..., None],
            [places.t()[None, :, :, None].expand(len(latents), -1, -1, -1)],
        )


def places_of_latents(model: Any) -> Tensor:
    """The encoding of the latents' places, (L, D); zeros for those that attend to the whole map.

    :param model: EdgeTAM, in sam2's classes.
    """
    grid = model.memory_encoder.position_encoding(torch.zeros(1, model.mem_dim, GRID, GRID))
    local = grid[0].permute(1, 2, 0).reshape(GRID * GRID, model.mem_dim)
    return torch.cat([torch.zeros(GLOBAL, model.mem_dim), local])
