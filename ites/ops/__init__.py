"""The ops: one definition each, run by the fastest backend.

| family | ops |
|---|---|
| rotation | `so3_exp`, `philox`, `draw_rotations`, `rotate_project`, `equivariance_distance` |
| dictionary | `dictionary_reprojection`, `invariance_distance` |
| graph | `graph_mix`, `graph_project_mix`, `semantic_graph_conv`, `join_graph_layers` |
| norm | `batch_norm_relu`, `nested_norm_relu`, `move_running` |
| linear | `linear`, `linear_keeping`, `linear_relu` |
| linear_norm | `linear_norm_relu`, `linear_nested_norm_relu`; weight gradients: `WeightFactors` |
| frame | `frame_points`, `frame_metres` |
| mirrored | `mirrored_input`, `mirrored_output` |

Every op takes `backend=None`; see `ites.ops.backends`. The reference backend is plain PyTorch,
which is the specification and can be differentiated twice; the others are kernels, which refuse it.
"""

from ites.ops.dictionary import dictionary_reprojection, invariance_distance
from ites.ops.frame import frame_metres, frame_points
from ites.ops.graph import (
    Graph,
    graph_mix,
    graph_of,
    graph_project_mix,
    semantic_graph_conv,
)
from ites.ops.join import GraphWeights, join_graph_layers
from ites.ops.linear import fuses_linear_relu, linear, linear_keeping, linear_relu
from ites.ops.linear_norm import (
    NormLayers,
    RunningStatistics,
    linear_nested_norm_relu,
    linear_norm_relu,
)
from ites.ops.mirrored import fuses_mirrored, mirrored_input, mirrored_output
from ites.ops.norm import batch_norm_relu, move_running, nested_norm_relu
from ites.ops.rotation import (
    RotationDraw,
    Rotations,
    TurnDraw,
    draw_rotations,
    equivariance_distance,
    philox,
    rotate_project,
    so3_exp,
)
from ites.ops.weight_gradients import WeightFactors

__all__ = [
    "Graph",
    "GraphWeights",
    "NormLayers",
    "RotationDraw",
    "Rotations",
    "RunningStatistics",
    "TurnDraw",
    "WeightFactors",
    "batch_norm_relu",
    "dictionary_reprojection",
    "draw_rotations",
    "equivariance_distance",
    "frame_metres",
    "frame_points",
    "fuses_linear_relu",
    "fuses_mirrored",
    "graph_mix",
    "graph_of",
    "graph_project_mix",
    "invariance_distance",
    "join_graph_layers",
    "linear",
    "linear_keeping",
    "linear_nested_norm_relu",
    "linear_norm_relu",
    "linear_relu",
    "mirrored_input",
    "mirrored_output",
    "move_running",
    "nested_norm_relu",
    "philox",
    "rotate_project",
    "semantic_graph_conv",
    "so3_exp",
]
