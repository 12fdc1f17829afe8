"""Semantic graph convolution and non-local attention over a skeleton, mixed in one pass.

A matrix product makes all the columns that a layer needs. `graph_mix` then mixes them over the
joints, along the skeleton's edges and by non-local attention. It takes one pose at a time, so that
no J x J matrix and no pair of joints is ever written to memory.
"""

from __future__ import annotations

import weakref
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ites.ops._registry import define, differentiate, expect, expect_floating, in_dtype
from ites.ops.backends import choose
from ites.ops.linear import keeping
from ites.ops.weight_gradients import WeightFactors
from ites.pose.skeleton import Skeleton


class Graph(NamedTuple):
    """A skeleton's edges and pooling pairs as tables on a device; `graph_of` makes it.

    Args:
        row_start: int32 (J + 1,): edges of joint i are `row_start[i]` to `row_start[i + 1]`.
        columns: int32 (E,): each edge's other joint, self loops included, ascending in a row.
        pairs: int32 (P, 2): joints that the non-local block pools.

    Each op refuses tables of another dtype, shape, stride or device. It also refuses tables whose
    rows do not start at 0, ascend and end at E, or that name a joint which does not exist.
    """

    row_start: Tensor
    columns: Tensor
    pairs: Tensor


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # a training may need what a lifting has made
def graph_of(skeleton: Skeleton, device: torch.device) -> Graph:
    """The tables of a skeleton on a device, made once."""
    rows = torch.tensor([row for row, _ in skeleton.edges])
    counts = torch.bincount(rows, minlength=skeleton.num_joints)
    tables = (
        torch.cat([counts.new_zeros(1), counts.cumsum(0)]),
        torch.tensor([column for _, column in skeleton.edges]),
        torch.tensor(skeleton.pooling).reshape(-1, 2),
    )
    return Graph(*(table.to(device, torch.int32) for table in tables))


_valid: dict[int, tuple[Any, ...]] = {}
"""The tables found valid, by the first one's id: a table is read once, not in each call, which on a
GPU would wait for it. Kept are weak references, and versions, as a table can be written to."""


def _check_tables(op: str, graph: Graph, x: Tensor) -> None:
    """Refuse tables that a kernel cannot follow.

    Raises:
        ValueError, TypeError: a table does not fit, with its name.
    """
    row_start, columns, pairs = graph
    known = _valid.get(id(row_start))
    if (
        known is not None
        and not x.is_meta
        and known[0]() is row_start
        and known[1]() is columns
        and known[2]() is pairs
        and known[3:] == (row_start._version, columns._version, pairs._version)
    ):
        return
    device = x.device
    shapes = (("J + 1",), ("E",), ("P", 2))
    for name, table, shape in zip(Graph._fields, graph, shapes, strict=True):
        expect(op, f"graph.{name}", table, *shape)
        if table.dtype != torch.int32 or table.device != device or not table.is_contiguous():
            raise TypeError(
                f"{op}: graph.{name} must be contiguous int32 on {device}, got {table.dtype} on "
                f"{table.device} of stride {table.stride()}"
            )
    if device.type == "meta":
        return
    _check_entries(op, row_start.tolist(), columns.tolist(), pairs.tolist())
    if not any(table.is_inference() for table in graph):  # which count no versions
        key = id(row_start)
        _valid[key] = (
            weakref.ref(row_start, lambda _: _valid.pop(key, None)),
            weakref.ref(columns),
            weakref.ref(pairs),
            *(table._version for table in graph),
        )


def _check_entries(op: str, rows: list[int], columns: list[int], pairs: list[list[int]]) -> None:
    joints, edges = len(rows) - 1, len(columns)
    if joints < 0 or rows[0] != 0 or rows[-1] != edges or rows != sorted(set(rows)):
        raise ValueError(
            f"{op}: graph.row_start must ascend from 0 to the {edges} edges, got {_short(rows)}"
        )
    for i in range(joints):
        row = columns[rows[i] : rows[i + 1]]
        if row != sorted(set(row)) or row[0] < 0 or row[-1] >= joints:
            raise ValueError(
                f"{op}: graph.columns must ascend in each row, from 0 to {joints - 1} at most, "
                f"got {_short(row)} for joint {i}"
            )
    for pair in pairs:
        if min(pair) < 0 or max(pair) >= joints:
            raise ValueError(f"{op}: graph.pairs must be joints 0 to {joints - 1}, got {pair}")


def _short(numbers: list[int]) -> str:
    return str(numbers) if len(numbers) <= 20 else f"{str(numbers[:20])[:-1]}, ...]"


def graph_mix(
    features: Tensor,
    logits: Tensor,
    bias: Tensor,
    graph: Graph,
    channels: int,
    phi_weight: Tensor | None = None,
    residual: Tensor | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Mix projected features over the joints: along edges, and by non-local attention.

    Columns of `features`: self (C), neighbour (C), g (M), phi (M), theta (1), then padding, which
    is ignored. A is the softmax of the logits over each row's edges, (p, q) runs over the pairs:

        y_i = A_ii self_i + sum_{j != i} A_ij neighbour_j + b  (+ residual_i)
        t_i = sum_p relu(theta_i + v . max(phi_p, phi_q) + kappa) / P * (max(g_p, g_q) + b_g)

    Args:
        features: (B, J, S); float32 or half, float64 on the reference and C++ backends.
        logits: (E,), one per edge, in the order of `Skeleton.edges`.
        bias: (C,), or (C + M + 1,) holding b, b_g and kappa.
        graph: the skeleton's tables.
        channels: C; 0 for the non-local part alone.
        phi_weight: (M,), v; None for the convolution alone.
        residual: (B, J, C) to add to y, or None.
        backend: see `ites.ops.backends`.

    Returns:
        y (B, J, C), and t (B, J, M) or None.

    Raises:
        ValueError, TypeError: a shape or dtype does not fit.

    Source: docs/method.md, 4.2 and 4.3: W0 and W1 are applied before, and theta is folded to a
    vector. Tensors of parameters are float32 where features are half.
    """
    expect("graph_mix", "features", features, "B", "J", "S")
    joints = features.shape[1]
    _check_mix(features, features.shape[2], logits, bias, graph, channels, phi_weight)
    attended = 0 if phi_weight is None else phi_weight.shape[0]
    if residual is not None:
        expect("graph_mix", "residual", residual, features.shape[0], joints, channels)
        expect_floating("graph_mix", features, residual=residual)
    wide = torch.promote_types(features.dtype, torch.float32)
    v = logits.new_empty(0) if phi_weight is None else phi_weight
    logits, bias, v = (in_dtype(tensor, wide) for tensor in (logits, bias, v))
    chosen = choose("graph_mix", features.device.type, features.dtype, backend)
    if chosen == "reference":
        y, t = _graph_mix_reference(features, logits, bias, v, graph, channels)
        y = y if residual is None else y + residual.to(y.dtype)
        return y, t if attended else None
    if residual is not None:
        residual = in_dtype(residual, features.dtype).contiguous()
    y, t = _graph_mix(
        features.contiguous(),
        logits.contiguous(),
        bias.contiguous(),
        v.contiguous(),
        residual,
        graph.row_start,
        graph.columns,
        graph.pairs,
        channels,
        chosen,
    )
    return y, t if attended else None


def _check_mix(
    x: Tensor,
    columns: int,
    logits: Tensor,
    bias: Tensor,
    graph: Graph,
    channels: int,
    phi_weight: Tensor | None,
) -> None:
    """Refuse what `graph_mix` cannot take; x is floating, of the graph's joints."""
    if not torch.compiler.is_compiling():  # tables that are traced have no entries
        _check_tables("graph_mix", graph, x)
    if channels < 0:
        raise ValueError(f"graph_mix: channels must not be negative, got {channels}")
    if phi_weight is not None:
        expect("graph_mix", "phi_weight", phi_weight, "M")
    attended = 0 if phi_weight is None else phi_weight.shape[0]
    least = 2 * channels + (2 * attended + 1 if attended else 0)
    expect("graph_mix", "features", x, "B", graph.row_start.shape[0] - 1, "S")
    expect("graph_mix", "logits", logits, graph.columns.shape[0])
    expect("graph_mix", "bias", bias, channels + (attended + 1 if attended else 0))
    if not x.is_floating_point():
        raise TypeError(f"graph_mix: features must be floating, got {x.dtype}")
    expect_floating("graph_mix", x, logits=logits, bias=bias, phi_weight=phi_weight)
    if columns < least:
        raise ValueError(f"graph_mix: features must have at least {least} columns, got {columns}")


def _graph_mix_reference(
    features: Tensor, logits: Tensor, bias: Tensor, v: Tensor, graph: Graph, channels: int
) -> tuple[Tensor, Tensor]:
    attended = v.shape[0]
    h = features.to(logits.dtype)
    h_self, h_neighbour, g, phi = h[..., : 2 * channels + 2 * attended].split(
        [channels, channels, attended, attended], dim=-1
    )
    adjacency = _adjacency(logits, graph)
    own = adjacency.diagonal()[:, None]  # [J, 1]
    y = own * h_self + (adjacency - adjacency.diagonal().diag()) @ h_neighbour + bias[:channels]
    if not attended:
        return y.to(features.dtype), y.new_empty(*y.shape[:2], 0)
    theta = h[..., 2 * channels + 2 * attended]  # [B, J]
    first, second = graph.pairs.long().unbind(-1)
    g_pooled = _max_pool(g, first, second) + bias[channels:-1]  # [B, P, M]
    phi_pooled = _max_pool(phi, first, second)
    affinity = (theta[:, :, None] + (phi_pooled @ v)[:, None, :] + bias[-1]).relu()  # [B, J, P]
    t = (affinity / len(first)) @ g_pooled
    return y.to(features.dtype), t.to(features.dtype)


def _max_pool(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """The larger of each pair's two joints, channel by channel; a tie's gradient is the first's.

    nan where either is, so that no wrong number hides.
    """
    a, b = x[:, first], x[:, second]
    return torch.where((b > a) | b.isnan(), b, a)


def _adjacency(logits: Tensor, graph: Graph) -> Tensor:
    """A (J, J): row softmax of the edges' logits, 0 where there is no edge."""
    joints = graph.row_start.shape[0] - 1
    edges = torch.arange(graph.columns.shape[0], device=logits.device)
    # An edge's row: how many rows end before it. Unlike repeat_interleave, ONNX has this.
    rows = (edges[:, None] >= graph.row_start[None, 1:]).sum(1)
    dense = logits.new_full((joints, joints), -torch.inf)
    return dense.index_put((rows, graph.columns.long()), logits).softmax(-1)


def _fake_mix(features, logits, bias, v, residual, row_start, columns, pairs, channels):
    poses, joints, _ = features.shape
    return (
        features.new_empty(poses, joints, channels),
        features.new_empty(poses, joints, v.shape[0]),
    )


def _check_mix_tables(op, features, logits, bias, v, residual, row_start, columns, pairs, channels):
    _check_tables(op, Graph(row_start, columns, pairs), features)


def _check_backward_tables(op, grad_y, grad_t, features, logits, bias, v, *tables_and_channels):
    _check_tables(op, Graph(*tables_and_channels[:3]), features)


_graph_mix = define(
    "graph",
    "graph_mix(Tensor features, Tensor logits, Tensor bias, Tensor v, Tensor? residual, "
    "Tensor row_start, Tensor columns, Tensor pairs, int channels) -> (Tensor, Tensor)",
    _fake_mix,
    _check_mix_tables,
)
_graph_mix_backward = define(
    "graph",
    "graph_mix_backward(Tensor? grad_y, Tensor? grad_t, Tensor features, Tensor logits, "
    "Tensor bias, Tensor v, Tensor row_start, Tensor columns, Tensor pairs, int channels) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    lambda grad_y, grad_t, *inputs: tuple(t.new_empty(t.shape) for t in inputs[:4]),
    _check_backward_tables,
)


def _graph_mix_vjp(saved, constants, grad_y, grad_t):
    has_residual, *constants = constants
    grads = [None if g is None else g.contiguous() for g in (grad_y, grad_t)]
    to_inputs = _graph_mix_backward(*grads, *saved, *constants)
    return *to_inputs, grads[0] if has_residual else None, None, None, None, None


differentiate(
    "graph_mix",
    lambda inputs, output: (
        [*inputs[:4], *inputs[5:8]],
        (inputs[4] is not None, inputs[8], inputs[9]),
    ),
    _graph_mix_vjp,
)


def graph_project_mix(
    x: Tensor,
    projection: Tensor,
    logits: Tensor,
    bias: Tensor,
    graph: Graph,
    channels: int,
    phi_weight: Tensor | None = None,
    residual: bool = False,
    backend: str | None = None,
    factors: WeightFactors | None = None,
) -> tuple[Tensor, Tensor | None]:
    """`graph_mix(x @ projection, ...)`, with x as the residual where `residual` says so.

    In C++ the product and the mixing take a few poses at a time, whose features never leave the
    cache. Without gradients these features are never written to memory. On other backends the two
    are separate calls.

    Args:
        x: (B, J, C_in).
        projection: (C_in, S), of x's dtype; its columns are those of `graph_mix`'s features.
        logits, bias, graph, channels, phi_weight, backend: see `graph_mix`.
        residual: whether x is added to y; C_in is C then.
        factors: collects the factors of the projection's gradient, see `ites.ops.linear.keeping`.

    Returns:
        y (B, J, C), and t (B, J, M) or None.

    Raises:
        ValueError, TypeError: a shape or dtype does not fit.

    Source: see `graph_mix`.
    """
    expect("graph_project_mix", "x", x, "B", "J", "C_in")
    expect("graph_project_mix", "projection", projection, x.shape[2], "S")
    if residual and x.shape[2] != channels:
        raise ValueError(
            f"graph_project_mix: x must have {channels} channels to be added to y, got {x.shape[2]}"
        )
    device = x.device.type
    together = not torch.is_autocast_enabled(device)
    if projection.device != x.device or (together and projection.dtype != x.dtype):
        raise TypeError(
            f"graph_project_mix: projection must be {x.dtype} on {x.device} like x, "
            f"got {projection.dtype} on {projection.device}"
        )
    if not together or choose("graph_mix", device, x.dtype, backend) != "cpp":
        added = None
        if residual:
            features, added = keeping(x.flatten(0, 1), projection, factors=factors, backend=backend)
            features, added = features.view(*x.shape[:2], projection.shape[1]), added.view_as(x)
        else:
            features = x @ projection
        return graph_mix(features, logits, bias, graph, channels, phi_weight, added, backend)
    _check_mix(x, projection.shape[1], logits, bias, graph, channels, phi_weight)
    v = logits.new_empty(0) if phi_weight is None else phi_weight
    parameters = (projection, logits, bias, v)
    keep = torch.is_grad_enabled() and any(t.requires_grad for t in (x, *parameters))
    y, t, _ = _graph_project_mix(
        x.contiguous(),
        *(in_dtype(tensor, x.dtype).contiguous() for tensor in parameters),
        *graph,
        channels,
        residual,
        keep,
        "cpp",
    )
    return y, t if v.shape[0] else None


def _fake_project_mix(
    x, projection, logits, bias, v, row_start, columns, pairs, channels, residual, keep
):
    poses, joints, _ = x.shape
    return (
        x.new_empty(poses, joints, channels),
        x.new_empty(poses, joints, v.shape[0]),
        x.new_empty(poses if keep else 0, joints, projection.shape[1]),
    )


_graph_project_mix = define(
    "graph",
    "graph_project_mix(Tensor x, Tensor projection, Tensor logits, Tensor bias, Tensor v, "
    "Tensor row_start, Tensor columns, Tensor pairs, int channels, bool residual, bool keep) "
    "-> (Tensor, Tensor, Tensor)",
    _fake_project_mix,
)
_graph_project_mix_backward = define(
    "graph",
    "graph_project_mix_backward(Tensor? grad_y, Tensor? grad_t, Tensor x, Tensor projection, "
    "Tensor features, Tensor logits, Tensor bias, Tensor v, Tensor row_start, Tensor columns, "
    "Tensor pairs, int channels, bool residual) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    lambda grad_y, grad_t, x, projection, features, *parameters: tuple(
        t.new_empty(t.shape) for t in (x, projection, *parameters[:3])
    ),
)


def _graph_project_mix_vjp(saved, constants, grad_y, grad_t, grad_features):
    grads = [None if g is None else g.contiguous() for g in (grad_y, grad_t)]
    return *_graph_project_mix_backward(*grads, *saved, *constants), *(None,) * 6


differentiate(
    "graph_project_mix",
    lambda inputs, output: (
        [*inputs[:2], output[2], *inputs[2:8]],
        (inputs[8], inputs[9], inputs[11]),
    ),
    _graph_project_mix_vjp,
)


def semantic_graph_conv(
    x: Tensor,
    weight: Tensor,
    logits: Tensor,
    bias: Tensor,
    graph: Graph,
    backend: str | None = None,
) -> Tensor:
    """Semantic graph convolution: `(A * I) @ (x @ W0) + (A * (1 - I)) @ (x @ W1) + b`.

    Args:
        x: (B, J, C_in).
        weight: (2, C_in, C_out): W0 for a joint itself, W1 for its neighbours.
        logits: (E,), one per edge, in the order of `Skeleton.edges`; A is their row softmax.
        bias: (C_out,).
        graph: the skeleton's tables.
        backend: see `ites.ops.backends`.

    Returns:
        (B, J, C_out).

    Raises:
        ValueError, TypeError: a shape or dtype does not fit.

    Source: Zhao et al., CVPR 2019, eq. 3; docs/method.md, 4.2.
    """
    expect("semantic_graph_conv", "x", x, "B", "J", "C_in")
    expect("semantic_graph_conv", "weight", weight, 2, x.shape[2], "C_out")
    projection = weight.transpose(0, 1).flatten(1)  # [W0 | W1]: [C_in, 2 C_out]
    return graph_project_mix(x, projection, logits, bias, graph, weight.shape[2], backend=backend)[
        0
    ]
