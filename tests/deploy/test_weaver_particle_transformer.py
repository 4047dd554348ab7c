"""Weights of older weaver versions compute in later ones what they were trained to."""

import pytest
import torch
from torch.testing import assert_close

from hepattn.deploy.weaver_particle_transformer import convert, fold_permuted_heads
from hepattn.training.configs import ConfigError


def test_folded_heads_compute_what_the_old_version_did() -> None:
    num_heads, dim = 2, 6
    state = {
        "blocks.0.c_attn": torch.randn(num_heads),
        "blocks.0.attn.out_proj.weight": torch.randn(dim, dim),
        "blocks.0.attn.out_proj.bias": torch.randn(dim),
        "norm.weight": torch.randn(dim),
    }
    x = torch.randn(5, dim)
    out = x @ state["blocks.0.attn.out_proj.weight"].T + state["blocks.0.attn.out_proj.bias"]
    expected = torch.einsum("thd,h->tdh", out.view(5, num_heads, -1), state["blocks.0.c_attn"])
    folded = fold_permuted_heads(state)
    found = x @ folded["blocks.0.attn.out_proj.weight"].T + folded["blocks.0.attn.out_proj.bias"]
    assert_close(found, expected.reshape(5, dim))
    assert (folded["blocks.0.c_attn"] == 1).all()
    assert folded["norm.weight"] is state["norm.weight"]


def test_old_and_new_names_of_the_input_projection_are_alike() -> None:
    weight = torch.randn(6, 2)
    for name in ("in_proj_weight", "in_proj.weight"):
        found = convert({f"cls_blocks.1.attn.{name}": weight})
        start = "encoder.class_blocks.1.attention"
        assert list(found) == [f"{start}.query.weight", f"{start}.key_value.weight"]
        assert_close(torch.cat(list(found.values())), weight)


def test_another_variant_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'attn\.gate_proj\.weight' is no weight"):
        convert({"blocks.0.attn.gate_proj.weight": torch.ones(1)})
