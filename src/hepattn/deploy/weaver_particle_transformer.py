"""Weights of weaver's Particle Transformer by our names."""

# D features, H heads

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from hepattn.deploy.weaver_names import rename

NAMES = (
    (r"embed\.input_bn\.(.*)", r"input_norm.\1"),
    (r"embed\.embed\.(\d+)\.(.*)", r"embedding.\1.\2"),
    (r"pair_embed\.embed\.(\d+)\.(.*)", r"encoder.pair_bias.network.\1.\2"),
    (r"pair_embed\.fts_embed\.(\d+)\.(.*)", r"encoder.pair_bias.extra_network.\1.\2"),
    (r"cls_token", r"encoder.class_token"),
    (r"norm\.(.*)", r"encoder.norm.\1"),
    (r"fc\.0\.(weight|bias)", r"head.\1"),
)
BLOCK_NAMES = (
    (r"pre_attn_norm\.(.*)", r"attention_norm.\1"),
    (r"attn\.out_proj\.(.*)", r"attention.out.\1"),
    (r"post_attn_norm\.(.*)", r"update_norm.\1"),
    (r"pre_fc_norm\.(.*)", r"dense_norm.\1"),
    (r"fc1\.(.*)", r"expand.\1"),
    (r"post_fc_norm\.(.*)", r"hidden_norm.\1"),
    (r"fc2\.(.*)", r"contract.\1"),
    (r"c_attn", r"head_scale"),
    (r"w_resid", r"residual_scale"),
    (r"ls1\.gamma", r"attention_scale.gamma"),
    (r"ls2\.gamma", r"dense_scale.gamma"),
)
BLOCK = re.compile(r"(cls_)?blocks\.(\d+)\.(.*)")
INPUT_PROJECTION = re.compile(r"attn\.in_proj[._](weight|bias)")
COUNTER = "trimmer._counter"  # of batches, no weight
VARIANTS = (
    "the published Particle Transformer; of weaver's other variants only extra pair features and "
    "layer scales have an equivalent here"
)


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of a Particle Transformer, as published or with extra pair features.

    Gates, normalised queries and gated dense nets of weaver's later versions have no equivalent by
    weight here.

    Args:
        state: Weights by weaver's names.

    Returns:
        All of them by the names of `hepattn.models.particle_transformer.ParticleTransformer`.

    Raises:
        ConfigError: If there is a name that such a network does not have.
    """
    converted: dict[str, Tensor] = {}
    for key, value in state.items():
        if key == COUNTER:
            continue
        if match := BLOCK.fullmatch(key):
            kind = "class_blocks" if match[1] else "blocks"
            start = f"encoder.{kind}.{match[2]}."
            if part := INPUT_PROJECTION.fullmatch(match[3]):
                query, key_value = value.tensor_split([len(value) // 3])
                converted[f"{start}attention.query.{part[1]}"] = query
                converted[f"{start}attention.key_value.{part[1]}"] = key_value
            else:
                converted[start + rename(match[3], BLOCK_NAMES, VARIANTS)] = value
            continue
        if value.dim() == 3:  # a convolution of width one, or the class token
            value = value.flatten() if key == "cls_token" else value.flatten(1)
        converted[rename(key, NAMES, VARIANTS)] = value
    return converted


def fold_permuted_heads(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rewrite weights of weaver 0.4.17 or older, so that later versions compute the same.

    After attention the older ones scaled each head's channels and then put the heads last, which
    mixes the channels. The scale and the order become a part of the output projection, exactly.

    Args:
        state: Weights by weaver's names, of such a version.

    Returns:
        Weights for later versions, by weaver's names.
    """
    folded = dict(state)
    for key, scale in state.items():
        if not key.endswith(".c_attn"):
            continue
        start = key.removesuffix("c_attn") + "attn.out_proj."
        num_heads, dim = len(scale), len(state[f"{start}weight"])
        order = torch.arange(dim).view(num_heads, -1).T.flatten()  # (D)
        channels = scale.repeat_interleave(dim // num_heads)  # (D)
        folded[f"{start}weight"] = (channels[:, None] * state[f"{start}weight"])[order]
        folded[f"{start}bias"] = (channels * state[f"{start}bias"])[order]
        folded[key] = torch.ones_like(scale)
    return folded
