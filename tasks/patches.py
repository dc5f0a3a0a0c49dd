"""What must change in sam2's and samexporter's modules for their graphs to be right and fast.

Tracing records every size that is read from a tensor as a computation, and bicubic
interpolation as an operator that breaks shape inference in onnxruntime-web: the raw encoder does
not load there. The image's shape is fixed, so here sizes are plain integers; tokens are rows of
matrices, which export as Gemm over the weights as they are stored; and what depends on weights
alone is computed once, here. Each patch replaces methods of one module, and `patched` restores
them.

"Largest difference" is to what the patch replaces, relative to the largest magnitude of the
output, over all eight architectures with noise on every parameter; `tests/test_patches.py`
measures it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional

from tasks.configuration import AttentionKind, MaskChoice

if TYPE_CHECKING:
    from sam2.modeling.backbones.hieradet import Hiera, MultiScaleAttention, MultiScaleBlock
    from sam2.modeling.backbones.image_encoder import FpnNeck
    from sam2.modeling.sam.mask_decoder import MaskDecoder
    from sam2.modeling.sam.transformer import Attention
    from sam2.modeling.sam2_utils import LayerNorm2d
    from samexporter.export_sam2 import SAM2ImageDecoder, SAM2ImageEncoder

Forward = Callable[..., Any]


@contextmanager
def patched_encoder(encoder: SAM2ImageEncoder, attention: AttentionKind) -> Iterator[None]:
    """Apply every encoder patch to samexporter's module; on exit it is as it was."""
    from sam2.modeling.backbones.hieradet import MultiScaleAttention, MultiScaleBlock

    trunk, neck = encoder.image_encoder.trunk, encoder.image_encoder.neck
    decoder = encoder.model.sam_mask_decoder
    with ExitStack() as stack:
        for module in trunk.modules():
            if type(module) is MultiScaleAttention:
                _replace(stack, module, forward=window_attention(module, attention))
            elif type(module) is MultiScaleBlock:
                _replace(stack, module, forward=block(module))
        _replace(stack, trunk, forward=hiera(trunk))
        after = {0: decoder.conv_s0, 1: decoder.conv_s1}
        _replace(stack, neck, forward=feature_pyramid(neck, after, encoder.no_mem_embed))
        _replace(stack, encoder, forward=encoder_outputs(encoder))
        yield


@contextmanager
def patched_decoder(decoder: SAM2ImageDecoder, masks: MaskChoice) -> Iterator[None]:
    """Apply every decoder patch to samexporter's module; on exit it is as it was."""
    transformer = decoder.mask_decoder.transformer
    to_image = transformer.final_attn_token_to_image
    with ExitStack() as stack:
        _replace(stack, to_image, forward=attention_to_image(to_image))
        for layer in transformer.layers:
            own, to_image = layer.self_attn, layer.cross_attn_token_to_image
            from_image = layer.cross_attn_image_to_token
            _replace(stack, own, forward=token_attention(own))
            _replace(stack, to_image, forward=attention_to_image(to_image))
            _replace(stack, from_image, forward=attention_from_image(from_image))
        _replace(
            stack,
            decoder,
            _embed_points=point_embedding(decoder),
            _embed_masks=mask_embedding(decoder),
            forward=decoder_outputs(decoder, masks),
        )
        yield


def _replace(stack: ExitStack, module: nn.Module, **methods: Forward) -> None:
    """Hide methods of a module's class behind attributes of the instance, until the stack ends."""
    for name, method in methods.items():
        stack.enter_context(patch.object(module, name, method))


# --- building blocks ---------------------------------------------------------------------------


class _Rows(torch.autograd.Function):
    """A linear layer over rows, (N, C) to (N, D), exported as Gemm.

    During an export only the shape of its result matters, so nothing is computed: tracing
    large takes seconds instead of half a minute, and memory for its weights alone.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if torch.onnx.is_in_onnx_export():
            return rows.new_empty(rows.shape[0], weight.shape[0])
        return functional.linear(rows, weight, bias)

    @staticmethod
    def symbolic(g: Any, rows: Any, weight: Any, bias: Any) -> Any:
        sizes = [rows.type().sizes()[0], weight.type().sizes()[0]]
        return g.op("Gemm", rows, weight, bias, transB_i=1).setType(rows.type().with_sizes(sizes))


def _linear(layer: nn.Linear, rows: Tensor) -> Tensor:
    return _rows(rows, layer.weight, layer.bias)


def _rows(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    result: Tensor = _Rows.apply(rows, weight, bias)  # type: ignore[no-untyped-call]
    return result


class _Attention(torch.autograd.Function):
    """softmax(query keyᵀ) value for each head; (B, N, C), (B, M, C), (B, M, C) to (B, N, C).

    The query is already scaled. Exported as plain operators, or as one
    ``com.microsoft::MultiHeadAttention``, which never holds the whole product. As with `_Rows`,
    nothing is computed during an export.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, heads: int, fused: bool
    ) -> Tensor:
        if torch.onnx.is_in_onnx_export():
            return torch.empty_like(query)
        size = query.shape[2] // heads
        queries, keys, values = (
            part.reshape(part.shape[0], -1, heads, size).transpose(1, 2)
            for part in (query, key, value)
        )
        mixed = torch.softmax(queries @ keys.transpose(2, 3), dim=-1) @ values
        return mixed.transpose(1, 2).flatten(2)

    @staticmethod
    def symbolic(g: Any, query: Any, key: Any, value: Any, heads: int, fused: bool) -> Any:
        if fused:
            return g.op(
                "com.microsoft::MultiHeadAttention",
                query,
                key,
                value,
                num_heads_i=heads,
                scale_f=1.0,
            ).setType(query.type())
        batch, _, channels = query.type().sizes()

        def heads_first(part: Any, order: list[int]) -> Any:
            shape = torch.tensor([batch, -1, heads, channels // heads])
            split = g.op("Reshape", part, g.op("Constant", value_t=shape))
            return g.op("Transpose", split, perm_i=order)

        product = g.op("MatMul", heads_first(query, [0, 2, 1, 3]), heads_first(key, [0, 2, 3, 1]))
        mixed = g.op(
            "MatMul", g.op("Softmax", product, axis_i=-1), heads_first(value, [0, 2, 1, 3])
        )
        merged = g.op("Transpose", mixed, perm_i=[0, 2, 1, 3])
        shape = torch.tensor([batch, -1, channels])
        return g.op("Reshape", merged, g.op("Constant", value_t=shape)).setType(query.type())


def _normalized(rows: Tensor, norm: LayerNorm2d) -> Tensor:
    """What sam2's LayerNorm2d does to the channels of a map, done to rows: one operator."""
    return functional.layer_norm(rows, _sizes(norm.weight), norm.weight, norm.bias, norm.eps)


def _bias(layer: nn.Conv2d | nn.ConvTranspose2d) -> Tensor:
    assert layer.bias is not None  # sam2 makes none without
    return layer.bias


def _sizes(tensor: Tensor) -> list[int]:
    """A tensor's shape as integers, which tracing does not record."""
    return [int(size) for size in tensor.shape]


def _rows_of_map(features: Tensor) -> Tensor:
    """A feature map (1, C, H, W) as rows (H * W, C)."""
    _, channels, height, width = _sizes(features)
    return features.permute(0, 2, 3, 1).reshape(height * width, channels)


def _map_of_rows(rows: Tensor, height: int, width: int) -> Tensor:
    """Rows (H * W, C) as a feature map (1, C, H, W)."""
    return rows.reshape(1, height, width, int(rows.shape[1])).permute(0, 3, 1, 2)


# --- encoder -----------------------------------------------------------------------------------


def bicubic_matrix(source: int, target: int) -> Tensor:
    """The matrix (target, source) that resamples a line as `interpolate(mode="bicubic")` does.

    Interpolating the unit vectors gives its columns, whatever convention torch follows.
    """
    unit = torch.eye(source)[None, None]
    matrix: Tensor = functional.interpolate(unit, size=(target, source), mode="bicubic")[0, 0]
    return matrix


def positional_embedding(trunk: Hiera, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Replaces ``Hiera._get_pos_embed``: two matrices, (H, K) and (K, W * C), whose product it is.

    No Resize, no Tile: bicubic interpolation is separable, and a window that repeats is a product
    with a matrix of ones and zeros. As the factors of a Gemm that adds to the patches, it is
    never a tensor of its own (24 MiB for tiny), in the file or in memory.
    Largest difference: 3e-7.
    """
    background: Tensor = trunk.pos_embed[0].permute(1, 2, 0)  # (h, w, C)
    window: Tensor = trunk.pos_embed_window[0].permute(1, 2, 0)  # (p, p, C)
    rows, columns, channels = _sizes(background)
    period = int(window.shape[0])
    across = bicubic_matrix(columns, width) @ background
    repeated = torch.cat([window] * (width // period), dim=1)
    sources = torch.cat([across, repeated]).reshape(rows + period, width * channels)
    repeat = torch.eye(period).repeat(height // period, 1)
    return torch.cat([bicubic_matrix(rows, height), repeat], dim=1), sources


def hiera(trunk: Hiera) -> Forward:
    """Replaces ``Hiera.forward``: the sizes of every stage are integers.

    Largest difference: that of the blocks within.
    """

    def forward(image: Tensor) -> list[Tensor]:
        x = trunk.patch_embed(image)
        _, height, width, channels = _sizes(x)
        down, sources = positional_embedding(trunk, height, width)
        x = torch.addmm(x.reshape(height, width * channels), down, sources)
        x = x.reshape(1, height, width, channels)
        outputs = []
        for number, each in enumerate(trunk.blocks):
            x = each(x)
            last = number == trunk.stage_ends[-1]
            if last or (trunk.return_interm_layers and number in trunk.stage_ends):
                outputs.append(x.permute(0, 3, 1, 2))
        return outputs

    return forward


def block(block: MultiScaleBlock) -> Forward:
    """Replaces ``MultiScaleBlock.forward``: window partition with integer sizes, rows for MLPs.

    Largest difference: 9e-7.
    """
    window = block.window_size
    stride = block.q_stride[0] if block.q_stride else 1

    def forward(x: Tensor) -> Tensor:
        _, height, width, channels = _sizes(x)
        normed = block.norm1(x)
        shortcut = x.reshape(height * width, channels)
        if block.dim != block.dim_out:
            shortcut = _linear(block.proj, normed.reshape(height * width, channels))
            if block.pool:
                pooled = block.pool(_map_of_rows(shortcut, height, width))
                height, width = _sizes(pooled)[2:]
                shortcut = _rows_of_map(pooled)
        if window:
            mixed = block.attn(_partition(normed, window))
            mixed = _unpartition(mixed, window // stride, height, width)
        else:
            mixed = block.attn(normed)
        x = shortcut + mixed.reshape(height * width, block.dim_out)
        first, second = block.mlp.layers
        x = x + _linear(second, block.mlp.act(_linear(first, block.norm2(x))))
        return x.reshape(1, height, width, block.dim_out)

    return forward


def window_attention(attention: MultiScaleAttention, kind: AttentionKind) -> Forward:
    """Replaces ``MultiScaleAttention.forward``: no Split of a joint product, integer sizes.

    Query, key and value get their own part of the weights, the query's scaled by
    1/sqrt(head size). Largest difference: 9e-7.
    """
    heads, dim = attention.num_heads, attention.dim_out
    scale = torch.tensor([1 / math.sqrt(dim // heads), 1, 1])
    weights = (attention.qkv.weight.detach().unflatten(0, (3, dim)) * scale[:, None, None]).unbind()
    biases = (attention.qkv.bias.detach().unflatten(0, (3, dim)) * scale[:, None]).unbind()

    def forward(x: Tensor) -> Tensor:
        batch, height, width, channels = _sizes(x)
        rows = x.reshape(batch * height * width, channels)
        query, key, value = (_rows(rows, *part) for part in zip(weights, biases, strict=True))
        if attention.q_pool:
            maps = query.reshape(batch, height, width, dim).permute(0, 3, 1, 2)
            pooled = attention.q_pool(maps).permute(0, 2, 3, 1)
            height, width = _sizes(pooled)[1:3]
            query = pooled
        query, key, value = (part.reshape(batch, -1, dim) for part in (query, key, value))
        parts = (query, key, value, heads, kind == "fused")
        mixed = _Attention.apply(*parts)  # type: ignore[no-untyped-call]
        rows = _linear(attention.proj, mixed.reshape(batch * height * width, dim))
        return rows.reshape(batch, height, width, dim)

    return forward


def _partition(x: Tensor, window: int) -> Tensor:
    """(1, H, W, C) to (windows, window, window, C), padded with zeros to whole windows."""
    _, height, width, channels = _sizes(x)
    below, right = -height % window, -width % window
    if below or right:
        x = functional.pad(x, (0, 0, 0, right, 0, below))
    rows, columns = (height + below) // window, (width + right) // window
    tiles = x.reshape(rows, window, columns, window, channels).transpose(1, 2)
    return tiles.reshape(rows * columns, window, window, channels)


def _unpartition(windows: Tensor, window: int, height: int, width: int) -> Tensor:
    """The inverse of `_partition`: (windows, window, window, C) to (1, height, width, C)."""
    rows, columns = -(-height // window), -(-width // window)
    channels = int(windows.shape[-1])
    tiles = windows.reshape(rows, columns, window, window, channels).transpose(1, 2)
    whole = tiles.reshape(1, rows * window, columns * window, channels)
    if (rows * window, columns * window) != (height, width):
        whole = whole[:, :height, :width]
    return whole


def feature_pyramid(neck: FpnNeck, after: dict[int, nn.Conv2d], constant: Tensor) -> Forward:
    """Replaces ``FpnNeck.forward`` and the convolutions that samexporter applies to its output.

    In the published models every convolution here is 1 × 1, a product over rows. Where nothing
    comes between two of them (the two high-resolution levels) they are one with fewer channels:
    256 channels at 256 × 256 are never computed. Doubling by nearest neighbour is a broadcast.
    The positional encodings, which no output uses, are left out.

    :param after: the 1 × 1 convolution that follows each high-resolution level.
    :param constant: added to the last level that is used (``no_mem_embed``).
    Largest difference: 7e-7.
    """
    top = len(neck.convs) - 1
    convs: list[nn.Conv2d] = [stage.conv for stage in list(neck.convs)[::-1]]
    weights, biases = [conv.weight.detach() for conv in convs], [_bias(conv) for conv in convs]
    from_above = {level for level in neck.fpn_top_down_levels if level < top}
    composed = {level: conv for level, conv in after.items() if level not in from_above}
    for level, conv in composed.items():
        matrix = conv.weight.detach().flatten(1).double()
        biases[level] = (matrix @ biases[level].double() + _bias(conv)).float().detach()
        weights[level] = torch.einsum("oc,cihw->oihw", matrix, weights[level].double()).float()

    def lateral(level: int, x: Tensor) -> Tensor:
        conv, weight, bias = convs[level], weights[level], biases[level]
        if conv.kernel_size == (1, 1):
            return _rows(_rows_of_map(x), weight.flatten(1), bias)
        return _rows_of_map(functional.conv2d(x, weight, bias, conv.stride, conv.padding))

    def double(rows: Tensor, height: int, width: int, channels: int) -> Tensor:
        if neck.fpn_interp_model == "nearest":
            return rows.reshape(height // 2, 1, width // 2, 1, channels)
        enlarged = functional.interpolate(
            _map_of_rows(rows, height // 2, width // 2),
            size=(height, width),
            mode=neck.fpn_interp_model,
            align_corners=False,
        )
        return _rows_of_map(enlarged).reshape(height // 2, 2, width // 2, 2, channels)

    def forward(xs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        out: list[Tensor] = []
        above: Tensor | None = None
        for level in range(top, -1, -1):
            height, width = _sizes(xs[level])[2:]
            rows = lateral(level, xs[level])
            channels = int(rows.shape[1])
            if level in from_above and above is not None:
                quads = rows.reshape(height // 2, 2, width // 2, 2, channels)
                rows = (quads + double(above, height, width, channels)).reshape(-1, channels)
                rows = rows / 2 if neck.fuse_type == "avg" else rows
            above = rows
            if level in after and level not in composed:
                conv = after[level]
                rows = _rows(rows, conv.weight.flatten(1), _bias(conv))
            if level == max(after) + 1:
                rows = rows + constant.reshape(1, channels)
            out.insert(0, _map_of_rows(rows, height, width))
        return out, out

    return forward


def encoder_outputs(encoder: SAM2ImageEncoder) -> Forward:
    """Replaces samexporter's ``SAM2ImageEncoder.forward``: the levels as `feature_pyramid` has
    them, without flattening and restoring each. Largest difference: none of its own.
    """

    def forward(image: Tensor) -> tuple[Tensor, ...]:
        levels = encoder.image_encoder(image)["backbone_fpn"]
        return tuple(levels[-encoder.model.num_feature_levels :])

    return forward


# --- decoder -----------------------------------------------------------------------------------


def point_embedding(decoder: SAM2ImageDecoder) -> Forward:
    """Replaces samexporter's ``SAM2ImageDecoder._embed_points``: no assignment into slices.

    (1, N, 2) and (1, N) to (1, N + 1, C), the padding point at the end. The label's embedding is
    a product with its one-hot code, so a label that is none of -1 to 3 adds nothing, as before.
    Largest difference: 6e-7.
    """
    encoder = decoder.prompt_encoder
    embeddings = [encoder.not_a_point_embed, *encoder.point_embeddings]
    table = torch.cat([embedding.weight for embedding in embeddings]).detach()
    known = torch.arange(len(embeddings), dtype=torch.float32) - 1
    frequencies = encoder.pe_layer.positional_encoding_gaussian_matrix.detach() * (2 * math.pi)
    size = decoder.img_size

    def embed(coords: Tensor, labels: Tensor) -> Tensor:
        angles = (coords * (2 / size) + (1 / size - 1)) @ frequencies
        position = torch.cat([angles.sin(), angles.cos()], dim=-1)
        code = (labels[:, :, None] == known).float()
        is_point = (labels[:, :, None] != -1).float()
        points = position * is_point + code @ table
        return torch.cat([points, table[None, :1]], dim=1)

    return embed


def mask_embedding(decoder: SAM2ImageDecoder) -> Forward:
    """Replaces samexporter's ``SAM2ImageDecoder._embed_masks``: rows (H * W, C) at once.

    A convolution of kernel and stride 2 is a product over the rows of 2 × 2 blocks, and a
    normalization over channels that are last is one LayerNormalization.
    Largest difference: 3e-6.
    """
    conv1, norm1, act, conv2, norm2, _, conv3 = decoder.prompt_encoder.mask_downscaling
    empty = decoder.prompt_encoder.no_mask_embed.weight

    def halve(rows: Tensor, side: int, conv: nn.Conv2d, norm: LayerNorm2d) -> Tensor:
        channels = int(rows.shape[1])
        blocks = rows.reshape(side // 2, 2, side // 2, 2, channels).permute(0, 2, 1, 3, 4)
        weight = conv.weight.detach().permute(0, 2, 3, 1).flatten(1)
        rows = functional.linear(blocks.reshape(-1, 4 * channels), weight, conv.bias)
        return act(_normalized(rows, norm))  # type: ignore[no-any-return]

    def embed(mask: Tensor, given: Tensor) -> Tensor:
        side = int(mask.shape[-1])
        rows = halve(mask.reshape(side * side, 1), side, conv1, norm1)
        rows = halve(rows, side // 2, conv2, norm2)
        rows = functional.linear(rows, conv3.weight.flatten(1), conv3.bias)
        embedded: Tensor = empty + given * (rows - empty)
        return embedded

    return embed


def token_attention(attention: Attention) -> Forward:
    """Replaces ``Attention.forward`` among tokens: batch 1, the query's weights scaled by
    1/sqrt(head size). Largest difference: 5e-7.
    """
    scale, heads = _scale(attention), attention.num_heads
    weight, bias = attention.q_proj.weight.detach() * scale, attention.q_proj.bias.detach() * scale

    def forward(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        query = functional.linear(_unbatched(q), weight, bias)
        key, value = attention.k_proj(_unbatched(k)), attention.v_proj(_unbatched(v))
        query, key, value = (_heads_first(part, heads) for part in (query, key, value))
        mixed = torch.softmax(query @ key.transpose(1, 2), dim=-1) @ value
        return attention.out_proj(_heads_last(mixed))[None]  # type: ignore[no-any-return]

    return forward


def attention_to_image(attention: Attention) -> Forward:
    """Replaces ``Attention.forward`` where a few tokens look at the whole image.

    (q Wq)(k Wk)ᵀ is (q Wq Wkᵀ) kᵀ: projecting the tokens of each head back costs less than
    projecting 4096 places, while there are fewer than 16 tokens. The same for the values, behind
    the softmax. The key's bias adds the same to every place, which softmax does not see; the
    value's bias passes through, for the weights of a softmax sum to 1.
    Largest difference: 6e-7.
    """
    scale, heads = _scale(attention), attention.num_heads
    query_weight = attention.q_proj.weight.detach() * scale
    query_bias = attention.q_proj.bias.detach() * scale
    key_weight = attention.k_proj.weight.detach().unflatten(0, (heads, -1))  # (heads, d, C)
    value_weight = attention.v_proj.weight.detach().unflatten(0, (heads, -1)).transpose(1, 2)
    out_bias = attention.out_proj(attention.v_proj.bias).detach()

    def forward(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        key, value = _unbatched(k), _unbatched(v)
        channels = int(key.shape[1])
        query = _heads_first(functional.linear(_unbatched(q), query_weight, query_bias), heads)
        looked_for = (query @ key_weight).reshape(-1, channels)  # (heads * tokens, C)
        seen = torch.softmax(looked_for @ key.T, dim=-1) @ value
        mixed = seen.reshape(heads, -1, channels) @ value_weight
        rows = functional.linear(_heads_last(mixed), attention.out_proj.weight, out_bias)
        return rows[None]

    return forward


def attention_from_image(attention: Attention) -> Forward:
    """Replaces ``Attention.forward`` where every place of the image looks at a few tokens.

    As in `attention_to_image`, the tokens are projected instead of the places.
    Largest difference: 8e-7.
    """
    scale, heads = _scale(attention), attention.num_heads
    query_weight = (attention.q_proj.weight.detach() * scale).unflatten(0, (heads, -1))
    query_bias = (attention.q_proj.bias.detach() * scale).reshape(heads, -1, 1)
    out_weight = attention.out_proj.weight.detach().T.unflatten(0, (heads, -1))  # (heads, d, C)

    def forward(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        query = _unbatched(q)
        places, channels = _sizes(query)
        key = _heads_first(attention.k_proj(_unbatched(k)), heads)
        value = _heads_first(attention.v_proj(_unbatched(v)), heads)
        offered = (key @ query_weight).reshape(-1, channels)  # (heads * tokens, C)
        product = query @ offered.T + (key @ query_bias).reshape(1, -1)
        weights = torch.softmax(product.reshape(places, heads, -1), dim=-1)
        taken = (value @ out_weight).reshape(-1, channels)
        mixed: Tensor = weights.reshape(places, -1) @ taken + attention.out_proj.bias
        return mixed[None]

    return forward


def _scale(attention: Attention) -> float:
    return 1 / math.sqrt(attention.internal_dim // attention.num_heads)


def _unbatched(rows: Tensor) -> Tensor:
    """(1, N, C) to (N, C), whether N is known or not."""
    return rows.reshape(-1, int(rows.shape[2]))


def _heads_first(rows: Tensor, heads: int) -> Tensor:
    """(N, heads * d) to (heads, N, d)."""
    return rows.reshape(-1, heads, int(rows.shape[1]) // heads).transpose(0, 1)


def _heads_last(rows: Tensor) -> Tensor:
    """(heads, N, d) to (N, heads * d)."""
    heads, size = int(rows.shape[0]), int(rows.shape[2])
    return rows.transpose(0, 1).reshape(-1, heads * size)


def decoder_outputs(decoder: SAM2ImageDecoder, choice: MaskChoice) -> Forward:
    """Replaces samexporter's ``SAM2ImageDecoder.forward``: masks and scores as chosen.

    ``multi``: the three masks. ``best``: the one of the three with the highest score, decided
    before masks are drawn, so only one is. ``single``: the model's own single mask, or the best
    of three where that one is not stable (`MaskDecoder._dynamic_multimask_via_stability`).
    Largest difference: 1e-6.
    """
    mask_decoder = decoder.mask_decoder
    predict = mask_prediction(
        mask_decoder,
        decoder.prompt_encoder.get_dense_pe(),
        first=0 if choice == "single" else 1,
        best=choice == "best",
    )

    def forward(
        image_embed: Tensor,
        high_res_feats_0: Tensor,
        high_res_feats_1: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        sparse = decoder._embed_points(point_coords, point_labels)
        dense = decoder._embed_masks(mask_input, has_mask_input)
        masks, scores = predict(image_embed, sparse, dense, high_res_feats_0, high_res_feats_1)
        if choice == "single":
            masks, scores = stable_mask(mask_decoder, masks, scores)
        return torch.clamp(masks, -32.0, 32.0), scores

    return forward


def mask_prediction(
    decoder: MaskDecoder, dense_position: Tensor, first: int, best: bool
) -> Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Replaces ``MaskDecoder.predict_masks`` for batch 1, from mask token ``first`` on.

    The image stays rows of tokens: a transposed convolution of kernel and stride 2 is a product
    whose results are put in place, and a normalization over the channels is one operator. The
    hypernetworks are one batched product.

    :param dense_position: `PromptEncoder.get_dense_pe`, (1, C, H, W); depends on weights only.
    """
    object_token = [decoder.obj_score_token.weight] if decoder.pred_obj_scores else []
    output_tokens = torch.cat(
        [*object_token, decoder.iou_token.weight, decoder.mask_tokens.weight]
    ).detach()
    score_token = len(object_token)
    masks = decoder.num_mask_tokens - first
    position = _rows_of_map(dense_position.detach())[None]
    networks = list(decoder.output_hypernetworks_mlps)[first:]
    layers = [
        (
            torch.stack([network.layers[depth].weight.detach().T for network in networks]),
            torch.stack([network.layers[depth].bias.detach()[None] for network in networks]),
        )
        for depth in range(networks[0].num_layers)
    ]
    grow1, norm, act1, grow2, act2 = decoder.output_upscaling
    head = decoder.iou_prediction_head

    def double(rows: Tensor, height: int, width: int, grow: nn.ConvTranspose2d) -> Tensor:
        """(H * W, C) to (2H * 2W, D)."""
        weight = grow.weight.detach().permute(2, 3, 1, 0).flatten(0, 2)  # (2 * 2 * D, C)
        channels = int(grow.weight.shape[1])
        blocks = functional.linear(rows, weight, _bias(grow).detach().repeat(4))
        # Only whole runs of 2 * D numbers change place, which is quick.
        runs = blocks.reshape(height, width, 2, 2 * channels).transpose(1, 2)
        return runs.reshape(4 * height * width, channels)

    def forward(
        image_embed: Tensor, sparse: Tensor, dense: Tensor, feats_0: Tensor, feats_1: Tensor
    ) -> tuple[Tensor, Tensor]:
        _, _, height, width = _sizes(image_embed)
        tokens = torch.cat([output_tokens[None], sparse], dim=1)
        keys = (_rows_of_map(image_embed) + dense)[None]
        queries = tokens
        transformer = decoder.transformer
        for layer in transformer.layers:
            queries, keys = layer(queries=queries, keys=keys, query_pe=tokens, key_pe=position)
        mixed = transformer.final_attn_token_to_image(q=queries + tokens, k=keys + position, v=keys)
        queries = transformer.norm_final_attn(queries + mixed)

        score = queries[:, score_token]
        for depth, linear in enumerate(head.layers):
            if depth < head.num_layers - 1:
                score = head.act(linear(score))
            else:
                score = functional.linear(score, linear.weight[first:], linear.bias[first:])
        scores = torch.sigmoid(score) if head.sigmoid_output else score

        begin = score_token + 1 + first
        mask_tokens = queries[0, begin : begin + masks]
        shown = masks
        kernels = layers
        if best:
            chosen = scores.argmax(dim=1)
            scores = scores.gather(1, chosen[:, None])
            mask_tokens = mask_tokens[chosen]
            kernels = [(weight[chosen], bias[chosen]) for weight, bias in layers]
            shown = 1
        hyper = mask_tokens[:, None]
        for depth, (weight, bias) in enumerate(kernels):
            hyper = hyper @ weight + bias
            if depth < len(kernels) - 1:
                hyper = torch.relu(hyper)

        rows = double(_unbatched(keys), height, width, grow1) + _rows_of_map(feats_1)
        rows = act1(_normalized(rows, norm))
        rows = double(rows, 2 * height, 2 * width, grow2) + _rows_of_map(feats_0)
        drawn = act2(rows) @ hyper.reshape(shown, -1).T  # (16 * H * W, masks)
        return drawn.T.reshape(1, shown, 4 * height, 4 * width), scores

    return forward


def stable_mask(decoder: MaskDecoder, masks: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """What ``MaskDecoder._dynamic_multimask_via_stability`` does, for batch 1.

    The single mask, unless the area above +delta is too small a part of that above -delta; then
    the best of the others. Largest difference: none.
    """
    if not decoder.dynamic_multimask_via_stability:
        return masks[:, :1], scores[:, :1]
    delta = decoder.dynamic_multimask_stability_delta
    single, others = masks[:, :1], masks[:, 1:]
    inner = (single > delta).float().sum(dim=(1, 2, 3))
    outer = (single > -delta).float().sum(dim=(1, 2, 3))
    # inner <= outer, so an empty mask (0 of 0) counts as stable here too.
    stable = inner >= decoder.dynamic_multimask_stability_thresh * outer
    chosen = scores[:, 1:].argmax(dim=1)
    mask = torch.where(stable[:, None, None, None], single, others[:, chosen])
    score = torch.where(stable[:, None], scores[:, :1], scores[:, 1:][:, chosen])
    return mask, score
