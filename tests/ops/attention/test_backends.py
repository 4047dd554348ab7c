"""The choice of a backend, its refusals, and the checks of what enters."""

import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor

import hepattn.ops.attention.backend as backend
from hepattn.ops.attention import Full, Pattern, Window, abilities_table, attention, make_plan
from reference.attention import prefix_valid

DOCS = Path(__file__).parents[3] / "docs" / "concepts" / "attention.md"


def attend(
    pattern: Pattern = Full(),  # noqa: B008 (frozen)
    *,
    num_tokens: int = 6,
    query_valid: Tensor | None = None,
    mask: Tensor | None = None,
    **options: object,
) -> Tensor:
    q = torch.randn(1, 2, num_tokens if query_valid is None else query_valid.shape[1], 4)
    k, v = torch.randn(2, 1, 2, num_tokens, 4)
    plan = make_plan(pattern, prefix_valid([num_tokens], num_tokens), query_valid)
    plan = plan if mask is None else plan.restrict(mask)
    return attention(q, k, v, plan=plan, **options)


@pytest.mark.parametrize(
    ("options", "value", "lack"),
    [
        ({"dropout": 0.1}, "dropout=0.1", "attention dropout"),
        ({"bias": torch.zeros(1, 1, 6, 6)}, r"bias of shape \(1, 1, 6, 6\)", "additive bias"),
        ({"mask": torch.ones(1, 6, 6).bool()}, r"mask of shape \(1, 6, 6\)", "boolean mask"),
    ],
)
def test_refusal_names_the_value_the_lack_and_who_can(
    options: dict[str, object], value: str, lack: str
) -> None:
    with pytest.raises(ValueError, match=f"'local' cannot serve .*{value}.*{lack}.*can: sdpa"):
        attend(backend="local", **options)


def test_refusal_names_what_flex_and_flash_lack_on_a_cpu() -> None:
    q = torch.randn(1, 1, 6, 4, requires_grad=True)
    plan = make_plan(Full(), prefix_valid([6], 6))
    with pytest.raises(ValueError, match=r"'flex' .*require gradients.*CPU, backward.*sdpa, local"):
        attention(q, q, q, plan=plan, backend="flex")
    with pytest.raises(ValueError, match=r"'flash' .*device=cpu.*dtype=.*lacks CPU, forward"):
        attention(q.detach(), q.detach(), q.detach(), plan=plan, backend="flash")


def test_learned_biases_in_a_compiled_graph_are_not_for_flex(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    q, bias = torch.randn(1, 1, 6, 4), torch.zeros(1, 1, 6, 6, requires_grad=True)
    plan = make_plan(Full(), prefix_valid([6], 6))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    needs = backend.describe(q, q, q, plan=plan, bias=bias)
    with pytest.raises(ValueError, match=r"'flex' .* compiled graph; backends that can: sdpa"):
        backend.refuse("flex", {"compiled_bias": needs["compiled_bias"]} | {"bias": needs["bias"]})


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "is_installed", lambda name: name not in backend.PACKAGES)
    needs = {"cuda": ("device=", "cuda"), "half": ("dtype=", torch.bfloat16)}
    with pytest.raises(
        ModuleNotFoundError, match=r"needs the package flash_attn, .*sdpa, local, f"
    ):
        backend.refuse("flash", needs)
    assert "flash" not in backend.able(needs)


@pytest.mark.parametrize(
    ("requests", "num_tokens", "installed", "expected"),
    [
        ({"wrap", "cuda", "half"}, 8192, True, "flash"),
        ({"wrap", "cuda", "half"}, 8192, False, "flex"),
        ({"wrap", "cuda", "float32"}, 8192, True, "flex"),
        ({"wrap", "cuda", "half", "dropout"}, 8192, False, "sdpa"),
        ({"wrap", "cuda", "float64"}, 8192, True, "local"),
        ({"wrap", "other_device", "float32"}, 8192, True, "local"),
        ({"wrap", "cuda", "float32", "offset_bias", "compiled_bias"}, 8192, True, "local"),
        ({"wrap", "cuda", "half"}, 256, True, "sdpa"),
        ({"full", "cuda", "half"}, 8192, True, "sdpa"),
        ({"full", "padding", "cuda", "half"}, 8192, True, "flash"),
    ],
)
def test_auto_on_a_gpu_avoids_dense_masks_of_long_events(
    requests: set[str],
    num_tokens: int,
    installed: bool,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backend, "is_installed", lambda name: installed or name != "flash")
    needs = {request: ("", request) for request in requests}
    plan = make_plan(Full(), prefix_valid([6], 6))
    assert backend.choose(needs, plan=plan, num_tokens=num_tokens) == expected


def test_unknown_backend_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match="backend='fast' must be one of: auto, sdpa, local, flex, flash"
    ):
        attend(backend="fast")


@pytest.mark.parametrize(
    ("pattern", "num_tokens", "options", "expected"),
    [
        (Window(4, wrap=True), 600, {}, "local"),
        (Window(4, wrap=True), 600, {"dropout": 0.1}, "sdpa"),
        (Window(4), 20, {}, "sdpa"),
        (Window(1000), 600, {}, "sdpa"),
        (Full(), 600, {}, "sdpa"),
    ],
)
def test_auto_picks_the_fastest_that_can_and_says_so(
    pattern: Pattern,
    num_tokens: int,
    options: dict[str, object],
    expected: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG, logger="hepattn.ops.attention"):
        attend(pattern, num_tokens=num_tokens, **options)
    assert f"attention backend {expected} for" in caplog.text


def test_auto_does_not_spend_time_on_padding(caplog: pytest.LogCaptureFixture) -> None:
    q = torch.randn(2, 1, 600, 4)
    plan = make_plan(Full(), prefix_valid([600, 20], 600))
    with caplog.at_level(logging.DEBUG, logger="hepattn.ops.attention"):
        attention(q, q, q, plan=plan)
    assert "attention backend local for" in caplog.text


def test_documented_table_is_the_generated_one() -> None:
    assert abilities_table() in DOCS.read_text()


def test_offset_bias_must_hold_offsets_on_both_sides_of_zero() -> None:
    for shape in ((1, 4), (3, 5), (5,)):
        with pytest.raises(ValueError, match="an odd number of offsets"):
            attend(offset_bias=torch.zeros(shape))


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_dropout_must_be_a_probability(dropout: float) -> None:
    with pytest.raises(ValueError, match=f"dropout={dropout} must be"):
        attend(dropout=dropout)


def test_bias_must_broadcast_over_events_and_heads_only() -> None:
    with pytest.raises(ValueError, match=r"bias of shape \(1, 1, 1, 6\) must be"):
        attend(bias=torch.zeros(1, 1, 1, 6))


@pytest.mark.parametrize(
    ("q_shape", "k_shape", "v_shape", "message"),
    [
        ((2, 6, 4), (2, 6, 4), (2, 6, 4), r"must be \(B, H, M, E\)"),
        ((1, 2, 6, 4), (1, 2, 6, 4), (1, 2, 6, 5), r"must be \(B, H, M, E\)"),
        ((1, 2, 6, 4), (1, 2, 6, 5), (1, 2, 6, 5), "agree in events and head features"),
        ((1, 3, 6, 4), (1, 2, 6, 4), (1, 2, 6, 4), "num_key_heads=2 must divide num_heads=3"),
        ((1, 2, 7, 4), (1, 2, 7, 4), (1, 2, 7, 4), "do not fit the plan"),
    ],
)
def test_shapes_must_fit(
    q_shape: tuple[int, ...], k_shape: tuple[int, ...], v_shape: tuple[int, ...], message: str
) -> None:
    plan = make_plan(Full(), prefix_valid([6], 6))
    with pytest.raises(ValueError, match=message):
        attention(torch.zeros(q_shape), torch.zeros(k_shape), torch.zeros(v_shape), plan=plan)


def test_dtypes_must_agree_outside_autocast() -> None:
    q = torch.zeros(1, 1, 6, 4)
    plan = make_plan(Full(), prefix_valid([6], 6))
    with pytest.raises(TypeError, match="cast them to one"):
        attention(q, q.double(), q, plan=plan)


def test_the_plan_must_live_where_the_data_does() -> None:
    plan = make_plan(Full(), prefix_valid([6], 6))
    q = torch.zeros(1, 1, 6, 4, device="meta")
    with pytest.raises(ValueError, match="q is on meta, the plan on cpu"):
        attention(q, q, q, plan=plan)
