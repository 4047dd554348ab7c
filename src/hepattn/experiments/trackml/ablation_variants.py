"""What each variant of the ablation changes in ``tracking.yaml``."""

import json
from collections.abc import Mapping
from typing import Any


def part(path: str, **options: Any) -> dict[str, Any]:
    """A layer for a config, by its path below ``hepattn.nn``."""
    return {"class_path": f"hepattn.nn.{path}", "init_args": options}


# The coordinates that `tracking.yaml` encodes, and φ.
SCALES = {"eta": 1.0, "z": 0.001, "r": 0.01, "geta": 0.1}
COORDINATES = [
    {"name": "phi", "kind": "harmonic"},
    *({"name": name, "scale": scale} for name, scale in SCALES.items()),
]

FULL = {"decoder.cross_attention": "full"}
CONTENT_MASKS = {"decoder.mask_by_position": False}
NO_ROTARY = CONTENT_MASKS | {"decoder.rotary": None, "decoder.attention.position_init": None}
NO_ENCODING = NO_ROTARY | {"decoder.encode_position": False}


def local(size: int) -> dict[str, Any]:
    """Local cross-attention: a window of so many hits around the query's place, and no mask."""
    return FULL | {"decoder.window": size, "decoder.wrap": True}


ALIBI = FULL | {"decoder.offset_bias": part("offset_bias.ALiBi"), "decoder.wrap": True}
PENALTY = part("offset_bias.OffDiagonalPenalty", strength=0.1, free=16)
LEARNED = {"queries": part("queries.LearnedQueries", num_queries=32), "loss.costs.seed": 0.0}
EXPERTS = part("moe.MixtureOfExperts")
FOURIER = part("positional.FourierEncoding", coordinates=COORDINATES)
PHI = part("positional.SinusoidalEncoding", alpha=100.0, coordinates=COORDINATES)
FLEX = {"encoder.attention.backend": "flex", "decoder.attention.backend": "flex"}

# What each variant changes. Keys are below `model.net.init_args`, but for `loss` below `model`, and
# leave out the `init_args` of encoder, decoder and loss.
VARIANTS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "learned_queries_no_rotary": LEARNED | NO_ROTARY | {"position": PHI},
    # which hits a query sees
    "full": FULL,
    "kmeans": {"decoder.cross_attention": "kmeans"},
    "local_16": local(16),
    "local_32": local(32),
    "local_64": local(64),
    "local_128": local(128),
    "local_32_rank": local(32) | {"decoder.centre": "rank"},
    "mask_and_local_32": local(32) | {"decoder.cross_attention": "mask"},
    "alibi": ALIBI,
    "off_diagonal_penalty": {"decoder.mask_bias": PENALTY, "decoder.wrap": True},
    # what queries know of where they stand
    "no_added_encoding": {"decoder.encode_position": False},
    "masks_by_content": CONTENT_MASKS,
    "no_rotary": NO_ROTARY,
    "no_encoding": NO_ENCODING,
    "local_32_no_encoding": local(32) | NO_ENCODING,
    "phi_encoding_no_rotary": NO_ROTARY | {"position": PHI},
    "random_encoding_no_rotary": NO_ROTARY | {"position": FOURIER},
    # layers
    "token_updates": {"decoder.update_tokens": True},
    "output_gate": {f"{room}.attention.output_gate": True for room in ("encoder", "decoder")},
    "laser": {f"{room}.attention.laser": True for room in ("encoder", "decoder")},
    "experts": {f"{room}.dense": EXPERTS for room in ("encoder", "decoder")},
    "registers": {"encoder.num_registers": 8},
    "registers_interspersed": {"encoder.num_registers": 8, "encoder.register_stride": 32},
    "no_value_residual": {"encoder.value_residual": "none"},
    # heads
    "iou_head": {"decoder.iou_head": True, "loss.weights.iou": 1.0},
    "regression": {"decoder.num_parameters": 5, "loss.weights.regression": 1.0},
    # backend; it has no backward on the CPU
    "flex": FLEX,
}
WEIGHTS_OF = {"flex": "baseline"}
"""Variants that are not trained, and whose weights they take."""


def make_config(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Write the changes of a variant as a config that goes behind ``tracking.yaml``."""
    tree: dict[str, Any] = {"model": {}}
    for key, value in changes.items():
        room, dot, rest = key.partition(".")
        path = "model.loss" if room == "loss" else f"model.net.init_args.{room}"
        *above, leaf = (f"{path}.init_args.{rest}" if dot else path).split(".")
        node = tree
        for name in above:
            node = node.setdefault(name, {})
        node[leaf] = value
    return tree


def describe(changes: Mapping[str, Any]) -> str:
    """Write the changes of a variant for a cell of a table; lists are left out."""

    def word(value: Any) -> str:
        if not isinstance(value, dict):
            return json.dumps(value).strip('"')
        options = (f"{k}={v}" for k, v in value["init_args"].items() if not isinstance(v, list))
        name = value["class_path"].rpartition(".")[2]
        return f"{name}({', '.join(options)})"

    return ", ".join(f"`{key}: {word(value)}`" for key, value in changes.items())
