"""Self-attention over the positions of a feature map: SAGAN, Zhang 2019, arXiv 1805.08318, section 3."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ganzoo.errors import UserError
from ganzoo.precision import at_least_float32

WHOLE = 2**24  #: elements of the attention weights (64 MiB) up to which they are held at once


class SelfAttentionLayer(nn.Module):
    """y = gamma o + x, where each position of o is a mean of values over all positions (equations 1 to 3).

    gamma starts at zero, so the layer starts as the identity. Queries and keys have C/8 channels; values have C/2, as
    in the authors' code (C/8 in the paper). Scores are not divided by the root of the channels, unlike a transformer's.
    """

    couples_samples = False

    def __init__(self, channels: int, *, pool: bool = False) -> None:
        """
        Args:
            channels: C, the channels of the feature map.
            pool: Halve the resolution of keys and values by their maximum, as in the authors' code and in BigGAN: a
                quarter of the memory.
        """
        super().__init__()
        if channels < 1:
            raise UserError(f"Self-attention over {channels} channels was asked for; there must be 1 or more.")
        narrow, wide = max(channels // 8, 1), max(channels // 2, 1)
        self.pool = pool
        self.query = nn.Conv2d(channels, narrow, 1, bias=False)  # g
        self.key = nn.Conv2d(channels, narrow, 1, bias=False)  # f
        self.value = nn.Conv2d(channels, wide, 1, bias=False)  # h
        self.out = nn.Conv2d(wide, channels, 1, bias=False)  # v
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W); returns the same shape."""
        attended = attend(*self._queries_and_keys(x), _rows(self._pooled(self.value(x))))  # (N, HW, C/2)
        o = self.out(attended.transpose(1, 2).reshape(len(x), -1, *x.shape[2:]))  # (N, C, H, W)
        return torch.add(x, self.gamma * o)

    def attention(self, x: Tensor) -> Tensor:
        """Weights (N, HW, M) in float32: row j says how much each of the M positions counts at j; its sum is 1."""
        return weights(*self._queries_and_keys(x))

    def _queries_and_keys(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return _rows(self.query(x)), _rows(self._pooled(self.key(x)))

    def _pooled(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 2) if self.pool else x


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """softmax(Q K^T) V without a scale, softmax in float32.

    Where the weights would have more than ``WHOLE`` elements, they are made for a block of queries at a time, and again
    in each backward pass, so that memory grows with the positions and not with their square. CUDA's fused kernel does
    that faster, but has no second derivative. Nobody needs to say in advance which derivatives will be wanted: a
    backward pass that is recorded (``create_graph``) takes the formulas, any other the kernel.

    Args:
        queries: (N, L, c).
        keys: (N, M, c).
        values: (N, M, d).

    Returns:
        (N, L, d), in the type of the values.
    """
    fused = _has_kernel(queries, values)
    num_weights = len(queries) * queries.shape[1] * keys.shape[1]
    if torch.compiler.is_compiling() or not (fused or num_weights > WHOLE):
        return _plain(queries, keys, values)
    attended: Tensor = _Attend.apply(queries, keys, values, fused)
    return attended


def attention_size(image_size: int, asked: int | None, smallest: int, *, largest: int = 32) -> int:
    """The resolution of attention in a generator and a discriminator of images; 0: none.

    Args:
        image_size: Height of the images.
        asked: What the recipe says; none: half of the images' height, halved on until it is at most ``largest``.
        smallest: The smallest resolution that both networks have behind a block.
        largest: Bound where nothing is asked for.

    Raises:
        UserError: For a resolution that one of the networks does not have.
    """
    there = [image_size >> n for n in range(1, image_size.bit_length()) if image_size % (1 << n) == 0]
    there = [size for size in there if size >= smallest]
    if asked is None:
        return next((size for size in there if size <= largest), 0)
    if asked and asked not in there:
        raise UserError(
            f"Attention was asked for at resolution {asked}, but both networks have feature maps of resolution "
            f"{', '.join(map(str, there))}: choose one of these, or 0 for none."
        )
    return asked


def weights(queries: Tensor, keys: Tensor) -> Tensor:
    """softmax(Q K^T) in float32, (N, L, M), for queries (N, L, c) and keys (N, M, c)."""
    return torch.softmax(at_least_float32(queries @ keys.transpose(1, 2)), dim=2)


class _Attend(torch.autograd.Function):
    """Attention that keeps its three arguments for the backward pass, and no weights."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, fused: bool) -> Tensor:
        ctx.save_for_backward(queries, keys, values)
        ctx.kernel = None
        if not fused:
            return torch.cat([_plain(block, keys, values) for block in _blocks(queries, queries, keys)], dim=1)
        wanted = any(ctx.needs_input_grad)
        given = [x.detach().requires_grad_(wanted) for x in (queries, keys, values)]
        with torch.set_grad_enabled(wanted):
            q, k, v = (x.unsqueeze(1) for x in given)  # a head
            attended = F.scaled_dot_product_attention(q, k, v, scale=1.0).squeeze(1)
        if wanted:
            ctx.kernel = given, attended
        return attended.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        queries, keys, values = ctx.saved_tensors
        recorded = torch.is_grad_enabled()  # then this pass will be differentiated, too
        if ctx.kernel is not None and not recorded:
            given, attended = ctx.kernel
            return *torch.autograd.grad(attended, given, gradients[0], retain_graph=True), None
        pairs = zip(_blocks(queries, queries, keys), _blocks(gradients[0], queries, keys), strict=True)
        of_queries = []
        of_keys, of_values = (at_least_float32(torch.zeros_like(x)) for x in (keys, values))  # sums of many blocks
        for block, gradient in pairs:
            arguments = block, keys, values, gradient
            found = _remade(*arguments) if recorded else _derivatives(*arguments)
            of_queries.append(found[0])
            of_keys, of_values = of_keys + found[1], of_values + found[2]
        return torch.cat(of_queries, dim=1), of_keys.to(keys.dtype), of_values.to(values.dtype), None


def _plain(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return weights(queries, keys).to(values.dtype) @ values


def _derivatives(queries: Tensor, keys: Tensor, values: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of <gradient, softmax(Q K^T) V> with respect to Q, K and V."""
    shares = weights(queries, keys)
    of_shares = at_least_float32(gradient @ values.transpose(1, 2))
    of_scores = (shares * (of_shares - (shares * of_shares).sum(2, keepdim=True))).to(queries.dtype)
    of_values = shares.to(values.dtype).transpose(1, 2) @ gradient
    return of_scores @ keys, of_scores.transpose(1, 2) @ queries, of_values


def _remade(*arguments: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`_derivatives`, of which a recorded pass keeps the arguments alone."""
    found: tuple[Tensor, Tensor, Tensor] = checkpoint(
        _derivatives, *arguments, use_reentrant=False, preserve_rng_state=False
    )
    return found


def _blocks(x: Tensor, queries: Tensor, keys: Tensor) -> list[Tensor]:
    """``x`` in blocks of so many queries that the weights of one block have at most ``WHOLE`` elements, if they can."""
    size = max(WHOLE // (len(queries) * keys.shape[1]), 1)
    return [x[:, at : at + size] for at in range(0, x.shape[1], size)]


def _has_kernel(queries: Tensor, values: Tensor) -> bool:
    """Whether torch has a kernel that keeps no weights: for CUDA, at widths of whole 16 bytes."""
    widths = queries.shape[2], values.shape[2]
    return queries.is_cuda and queries.dtype != torch.float64 and all(width % 8 == 0 for width in widths)


def _rows(x: Tensor) -> Tensor:
    """A feature map (N, c, H, W) as positions (N, HW, c)."""
    return x.flatten(2).transpose(1, 2)
