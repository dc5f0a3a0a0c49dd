"""SAM 2's memory of frames as two graphs: one reads memories, the other writes them.

`MemoryReader` computes sam2's `MemoryAttention` for one object, over memories assembled as in
`SAM2Base._prepare_memory_conditioned_features`. The differences:

* A rotation acts on pairs of channels. The channels of queries and keys are reordered so that the
  two halves of the channels form the pairs; then products and sums suffice. The rotation's tables
  depend on the column for half of the pairs and on the row for the others, and are stored that way.
* The values of a memory are 64 channels wide before projection. They are summed at that width and
  projected afterwards: the weights of a softmax sum to one, so the bias stays the same.
* Queries are processed in blocks: the whole product with seven memories would be 470 MB.

EdgeTAM's attention differs only in its memories, which have fewer tokens: `Latents` instead of
`Maps`. Variants 1 and 2 of EfficientTAM average the tokens of several memories: `Pooled`.
"""

from __future__ import annotations

import math

import torch
from sam2.modeling.memory_attention import MemoryAttentionLayer
from sam2.modeling.sam.transformer import RoPEAttention
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn
from torch.nn import functional

from tasks.model.edgetam_memory import GLOBAL, GRID, LATENTS, places_of_latents
from tasks.model.efficienttam import SHIFT, EfficientRoPEAttention1, pooled
from tasks.model.operators import first_if_alone, linear_rows
from tasks.model.patching import Places, separated

BLOCK = 512  # rows of queries in a block: with seven memories its product takes 59 MB
THETA = 10_000.0  # the base of the sines that encode a pointer's time


class MemoryReader(nn.Module):
    """Conditions an image's features on an object's memories; the model must have a memory."""

    @torch.no_grad()
    def __init__(self, model: SAM2Base) -> None:
        super().__init__()
        attention = model.memory_attention
        side = model.image_size // model.backbone_stride
        self.no_memory = model.no_mem_embed.detach().reshape(1, 1, 1, -1)
        features = torch.zeros(1, model.hidden_dim, side, side)
        self.side, self.width, self.memory_width = side, model.hidden_dim, model.mem_dim
        self.input_rows, self.input_columns = separated(
            0.1 * model.image_encoder.neck.position_encoding(features)
        )
        self.memories = memories_of(model)
        # The newest memory uses the first row; memories of prompted frames use the last.
        self.times = model.maskmem_tpos_enc.detach().reshape(-1, model.mem_dim)
        self.pointer_time = model.obj_ptr_tpos_proj if model.add_tpos_enc_to_obj_ptrs else None
        projected = model.proj_tpos_enc_in_obj_ptrs
        self.time_width = model.hidden_dim if projected else model.mem_dim
        self.layers = nn.ModuleList(Layer(each, side, self.memories) for each in attention.layers)
        self.norm = attention.norm
        self.eval()  # otherwise an export would put sam2's shared modules back into training mode

    def forward(
        self,
        image_embed: Tensor,
        memories: Tensor,
        memory_times: Tensor,
        pointers: Tensor,
        pointer_times: Tensor | None = None,
    ) -> Tensor:
        """The image embedding (1, C, S, S) that the decoder takes.

        :param image_embed: (1, C, S, S), as the encoder's graph returns it.
        :param memories: (M, D, S, S), or EdgeTAM's (M, L, D), of M frames.
        :param memory_times: (M,) int32, rows of ``maskmem_tpos_enc``.
        :param pointers: (P, C), of P frames; P can be 0.
        :param pointer_times: (P,), each pointer's distance from the frame, 1 for the farthest that
            counts; only in SAM 2.1.
        """
        side, width = self.side, self.width
        # The encoder added the embedding for "no memory".
        x = image_embed.permute(0, 2, 3, 1) + (self.input_rows - self.no_memory)
        x = (x + self.input_columns).reshape(side * side, width)
        tokens = self.memories.tokens(memories)
        memory_keys = self.memories.placed(tokens, self.times.index_select(0, memory_times))
        # Attention ignores the order of tokens. There may be no pointers, so no sizes are inferred.
        pointer_tokens = torch.cat(torch.split(pointers, self.memory_width, dim=1))
        pointer_keys = pointer_tokens + self._times_of(pointer_times)
        values = torch.cat([self.memories.values(tokens), pointer_tokens])
        bias = self.memories.bias(tokens, pointer_tokens)
        for layer in self.layers:
            x = layer(x, memory_keys, pointer_keys, values, bias)
        result: Tensor = self.norm(x).reshape(1, side, side, width).permute(0, 3, 1, 2)
        return result

    def _times_of(self, pointer_times: Tensor | None) -> Tensor:
        """The encoded times of the pointers' tokens, (P * C / D, D), or zeros (1, D)."""
        if self.pointer_time is None or pointer_times is None:
            return torch.zeros(1, self.memory_width)
        half = self.time_width // 2
        frequency = THETA ** -(2 * torch.div(torch.arange(half), 2, rounding_mode="floor") / half)
        angle = pointer_times[:, None] * frequency
        sines = torch.cat([angle.sin(), angle.cos()], dim=1)
        if isinstance(self.pointer_time, nn.Linear):
            sines = linear_rows(sines, self.pointer_time.weight, self.pointer_time.bias)
        return torch.cat([sines] * (self.width // self.memory_width))


class Maps:
    """sam2's memories, (M, D, S, S); each place is a token."""

    def __init__(self, model: SAM2Base) -> None:
        self.side = model.image_size // model.backbone_stride
        self.rows, self.columns = places_of_memory(model)

    def tokens(self, memories: Tensor) -> Tensor:
        """Memories as tokens (M, S, S, D)."""
        return memories.permute(0, 2, 3, 1)

    def placed(self, tokens: Tensor, times: Tensor) -> Tensor:
        """Tokens plus the encodings of their places and of their memories' times (M, D)."""
        width = times.shape[1]
        return tokens + (self.rows + times.reshape(-1, 1, 1, width)) + self.columns

    def rotated(self, keys: Tensor, rotation: Rotation) -> Tensor:
        """The keys (M * S * S, C) of tokens, each rotated by its place."""
        return rotation(keys)

    def values(self, tokens: Tensor) -> Tensor:
        """The tokens (N, D) to which the keys of `rotated` belong."""
        return tokens.reshape(-1, int(tokens.shape[-1]))

    def bias(self, tokens: Tensor, pointer_tokens: Tensor) -> Tensor | None:
        """The bias of the logits of keys and pointers, (1, N + T); None for no bias."""
        return None


class Pooled(Maps):
    """EfficientTAM's memories; with several memories, four places form one key."""

    def __init__(self, model: SAM2Base, attention: EfficientRoPEAttention1) -> None:
        super().__init__(model)
        self.shifts_channels = attention.shifts_channels

    def fewer(self, tokens: Tensor, shift: float = 0.0) -> Tensor:
        """(M, S, S, D) as rows: averages plus a shift, or each place of a single memory."""
        averages = pooled(tokens, self.side) + shift
        several = torch.cat([averages[1:], averages[:-1][:1]])  # attention ignores their order
        parts = (several, first_if_alone(tokens))
        return torch.cat([part.reshape(-1, int(tokens.shape[-1])) for part in parts])

    def rotated(self, keys: Tensor, rotation: Rotation) -> Tensor:
        maps = rotation(keys).reshape(-1, self.side, self.side, int(keys.shape[1]))
        return self.fewer(maps, SHIFT if self.shifts_channels else 0.0)

    def values(self, tokens: Tensor) -> Tensor:
        return self.fewer(tokens)

    def bias(self, tokens: Tensor, pointer_tokens: Tensor) -> Tensor | None:
        if self.shifts_channels:
            return None
        columns = [self.fewer(0 * tokens[..., :1], SHIFT), 0 * pointer_tokens[:, :1]]
        return torch.cat(columns).transpose(0, 1)


def places_of_memory(model: SAM2Base) -> Places:
    """The encoding of the places of a memory's map."""
    side = model.image_size // model.backbone_stride
    return separated(
        model.memory_encoder.position_encoding(torch.zeros(1, model.mem_dim, side, side))
    )


class Latents(Maps):
    """EdgeTAM's memories, (M, L, D); the last latents form a grid and have one place each."""

    side = GRID

    def __init__(self, model: SAM2Base) -> None:
        self.places = places_of_latents(model)

    def tokens(self, memories: Tensor) -> Tensor:
        return memories

    def placed(self, tokens: Tensor, times: Tensor) -> Tensor:
        return tokens + (self.places + times.reshape(-1, 1, times.shape[1]))

    def rotated(self, keys: Tensor, rotation: Rotation) -> Tensor:
        width = int(keys.shape[1])
        whole, grid = torch.split(keys.reshape(-1, LATENTS, width), [GLOBAL, GRID * GRID], 1)
        grid = rotation(grid.reshape(-1, width)).reshape(-1, GRID * GRID, width)
        return torch.cat([whole, grid], dim=1).reshape(-1, width)


def memories_of(model: SAM2Base) -> Maps:
    """The kind of memories that a model attends to."""
    if hasattr(model, "spatial_perceiver"):
        return Latents(model)
    attention = model.memory_attention.layers[0].cross_attn_image
    pools = isinstance(attention, EfficientRoPEAttention1)
    return Pooled(model, attention) if pools else Maps(model)


class Rotation:
    """Rotates queries and keys by their place; the channels of both are in `order`.

    The two halves of the channels are the two parts of each pair. In each half, the pairs that
    rotate with the column come first.
    """

    def __init__(self, attention: RoPEAttention, side: int) -> None:
        width = int(attention.internal_dim)
        theta = float(attention.compute_cis.keywords["theta"])
        self.order = torch.cat([torch.arange(0, width, 2), torch.arange(1, width, 2)])
        quarter = width // 4
        frequency = theta ** -(torch.arange(0, width, 4)[:quarter] / width)
        angle = torch.outer(torch.arange(side, dtype=torch.float32), frequency)
        self.cosine, self.sine = angle.cos(), angle.sin()  # (side, quarter)
        self.side, self.quarter = side, quarter

    def __call__(self, rows: Tensor) -> Tensor:
        """Rotate the rows (any number * S * S, C) of maps, each by its place."""
        x = rows.reshape(-1, self.side, self.side, 4 * self.quarter)
        across = self.cosine[None], self.sine[None]
        down = self.cosine[:, None], self.sine[:, None]
        a_across, a_down, b_across, b_down = torch.split(x, self.quarter, dim=-1)
        a_across, b_across = turned(a_across, b_across, *across)
        a_down, b_down = turned(a_down, b_down, *down)
        parts = torch.cat([a_across, a_down, b_across, b_down], dim=-1)
        return parts.reshape(-1, 4 * self.quarter)


def turned(a: Tensor, b: Tensor, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor]:
    """The rotated pairs (a, b)."""
    return a * cosine - b * sine, b * cosine + a * sine


class Layer(nn.Module):
    """A layer of the memory attention over rows (S * S, C), with precomputed weights."""

    def __init__(self, layer: MemoryAttentionLayer, side: int, memories: Maps) -> None:
        super().__init__()
        self.layer, self.memories = layer, memories
        inner, outer = layer.self_attn, layer.cross_attn_image
        self.inner, self.outer = Rotation(inner, side), Rotation(outer, side)
        same = memories.side == side
        self.outer_keys = self.outer if same else Rotation(outer, memories.side)
        self.inner_query, self.inner_key = scaled(inner, self.inner), ordered(inner, self.inner)
        self.inner_value = projected_value(inner)
        self.outer_query, self.outer_key = scaled(outer, self.outer), ordered(outer, self.outer)
        self.outer_value = projected_value(outer)

    def forward(
        self,
        x: Tensor,
        memory_keys: Tensor,
        pointer_keys: Tensor,
        values: Tensor,
        bias: Tensor | None,
    ) -> Tensor:
        """Attend to itself, then to memories and pointers.

        :param memory_keys: tokens (…, D) of memories plus their places and times.
        :param pointer_keys: tokens of pointers (T, D) plus their times.
        :param values: the tokens of memories, then those of pointers.
        :param bias: see `Maps.bias`.
        """
        own = self.layer
        normed = own.norm1(x)
        keys = self.inner(linear_rows(normed, *self.inner_key))
        queries = self.inner(linear_rows(normed, *self.inner_query))
        x = x + linear_rows(attend(queries, keys, normed), *self.inner_value)
        projected = linear_rows(memory_keys.reshape(-1, pointer_keys.shape[1]), *self.outer_key)
        rotated = self.memories.rotated(projected, self.outer_keys)
        keys = torch.cat([rotated, linear_rows(pointer_keys, *self.outer_key)])
        normed = own.norm2(x)
        queries = self.outer(linear_rows(normed, *self.outer_query))
        x = x + linear_rows(attend(queries, keys, values, bias), *self.outer_value)
        first, second = own.linear1, own.linear2
        hidden = functional.relu(linear_rows(own.norm3(x), first.weight, first.bias))
        return x + linear_rows(hidden, second.weight, second.bias)


def attend(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None = None) -> Tensor:
    """softmax(queries keysᵀ + bias) values, one block of queries at a time; queries are already
    scaled.
    """
    columns = keys.transpose(0, 1)
    products = (each @ columns for each in torch.split(queries, BLOCK))
    logits = products if bias is None else (each + bias for each in products)
    return torch.cat([functional.softmax(each, dim=1) @ values for each in logits])


def scaled(attention: RoPEAttention, rotation: Rotation) -> tuple[Tensor, Tensor]:
    """Weight and bias of queries, in a rotation's order, divided by the root of their width."""
    share = 1 / math.sqrt(attention.internal_dim)
    weight, bias = attention.q_proj.weight, attention.q_proj.bias
    return share * weight[rotation.order], share * bias[rotation.order]


def ordered(attention: RoPEAttention, rotation: Rotation) -> tuple[Tensor, Tensor]:
    """Weight and bias of keys, in a rotation's order."""
    return attention.k_proj.weight[rotation.order], attention.k_proj.bias[rotation.order]


def projected_value(attention: RoPEAttention) -> tuple[Tensor, Tensor]:
    """Weight and bias of the projections of values and of the output, merged into one."""
    value, out = attention.v_proj, attention.out_proj
    return out.weight @ value.weight, out.weight @ value.bias + out.bias


class MemoryWriter(nn.Module):
    """Encodes an object's mask on a frame as `SAM2Base._encode_new_memory` does."""

    @torch.no_grad()
    def __init__(self, model: SAM2Base) -> None:
        super().__init__()
        self.no_memory = model.no_mem_embed.detach().reshape(1, -1, 1, 1)
        self.encoder = model.memory_encoder
        self.scale, self.bias = model.sigmoid_scale_for_mem_enc, model.sigmoid_bias_for_mem_enc
        self.binarized = bool(model.binarize_mask_from_pts_for_mem_enc)
        embedding = model.no_obj_embed_spatial
        self.no_object = None if embedding is None else embedding.detach().reshape(1, -1, 1, 1)
        self.perceiver = getattr(model, "spatial_perceiver", None)  # of EdgeTAM
        self.places = places_of_memory(model)
        self.eval()

    def forward(
        self,
        image_embed: Tensor,
        low_res_masks: Tensor,
        prompted: Tensor,
        object_score_logits: Tensor | None = None,
    ) -> Tensor:
        """The memory (1, D, S, S), or EdgeTAM's latents (1, L, D).

        :param image_embed: (1, C, S, S), as the encoder's graph returns it.
        :param low_res_masks: logits (1, 1, 4 * S, 4 * S).
        :param prompted: (1,), 1 on a frame that the user prompted, else 0.
        :param object_score_logits: (1, 1), above 0 where the object is on the frame; only in
            SAM 2.1.
        """
        large = functional.interpolate(
            low_res_masks, scale_factor=4.0, mode="bilinear", align_corners=False
        )
        mask = torch.sigmoid(large)
        if self.binarized:
            mask = mask + prompted * ((large > 0).float() - mask)
        features = image_embed - self.no_memory
        masks = self.encoder.mask_downsampler(mask * self.scale + self.bias)
        fused = self.encoder.fuser(self.encoder.pix_feat_proj(features) + masks)
        memory: Tensor = self.encoder.out_proj(fused)
        if self.no_object is not None and object_score_logits is not None:
            memory = memory + (object_score_logits <= 0).float()[:, :, None, None] * self.no_object
        if self.perceiver is not None:
            memory = self.perceiver(memory, self.places)
        return memory
