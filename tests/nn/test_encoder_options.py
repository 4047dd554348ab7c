"""What every encoder promises, whatever its options."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from hepattn.nn.dense import Dense
from hepattn.nn.encoder import Encoder
from hepattn.nn.offset_bias import ALiBi, RelativeBias
from hepattn.nn.rotary import Rotary
from hepattn.training.optimizer import parameter_groups
from nn.encoder_cases import (
    LENGTHS,
    ROTARY,
    VARIANTS,
    make_encoder,
    random_positions,
    random_tokens,
)

PLACES = {"window", "offset_bias", "register_stride"}
WITHOUT_PLACES = [name for name in VARIANTS if not PLACES & VARIANTS[name].keys()]
ALL = pytest.mark.parametrize("name", VARIANTS)


def biased(encoder: Encoder) -> Encoder:
    """Move learned biases and norms away from where they start, so that they matter."""
    for name, parameter in encoder.named_parameters():
        if "table" in name or "gate" in name or "norm" in name:
            torch.nn.init.normal_(parameter)
    return encoder


@ALL
@pytest.mark.parametrize("is_sorted", [False, True])
def test_padding_never_changes_a_real_output(name: str, is_sorted: bool) -> None:
    encoder = biased(make_encoder(**VARIANTS[name]))
    x, valid = random_tokens(16)
    positions, key = random_positions(encoder, valid), torch.rand(valid.shape)
    padding = ~valid.unsqueeze(-1)

    def run(x: Tensor, valid: Tensor, positions: Tensor | None, key: Tensor) -> Tensor:
        return encoder(x, valid, key if is_sorted else None, positions=positions)

    spoilt = None if positions is None else positions.masked_fill(padding, 1e3)
    together = run(x.masked_fill(padding, 1e6), valid, spoilt, key)
    assert (together[~valid] == 0).all()
    for event, length in enumerate(LENGTHS):
        if length:
            here = (slice(event, event + 1), slice(length))
            alone = run(
                x[here], valid[here], None if positions is None else positions[here], key[here]
            )
            assert_close(together[here], alone, atol=2e-5, rtol=1e-4)


@ALL
def test_every_parameter_learns_and_gradients_are_finite(name: str) -> None:
    encoder = make_encoder(**VARIANTS[name])
    x, valid = random_tokens(16)
    x.requires_grad_()
    out = encoder(x, valid, positions=random_positions(encoder, valid))
    (out * torch.randn(out.shape)).sum().backward()
    for parameter_name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.abs().max() > 0, parameter_name
    assert (x.grad[~valid] == 0).all()


@ALL
def test_backends_agree_forward_and_backward(name: str) -> None:
    options = VARIANTS[name]
    local = biased(make_encoder(backend="local", **options))
    dense = make_encoder(backend="sdpa", **options)
    dense.load_state_dict(local.state_dict())
    x, valid = random_tokens(16, (40, 25, 0, 3))
    positions, weight = random_positions(local, valid), torch.randn(x.shape)
    outputs = [encoder(x, valid, positions=positions) for encoder in (local, dense)]
    assert_close(*outputs, atol=2e-5, rtol=1e-4)
    for out in outputs:
        (out * weight).sum().backward()
    for (parameter_name, a), b in zip(local.named_parameters(), dense.parameters(), strict=True):
        message = f"{parameter_name}: gradients differ"
        assert_close(a.grad, b.grad, atol=2e-4, rtol=1e-3, msg=message)


@pytest.mark.parametrize("name", WITHOUT_PLACES)
def test_without_places_permuted_tokens_give_permuted_outputs(name: str) -> None:
    encoder = biased(make_encoder(**VARIANTS[name]))
    x, valid = random_tokens(16, (12,))
    positions, order = random_positions(encoder, valid), torch.randperm(12)
    expected = encoder(x, valid, positions=positions)[:, order]
    positions = None if positions is None else positions[:, order]
    out = encoder(x[:, order], valid, positions=positions)
    assert_close(out, expected, atol=1e-5, rtol=1e-4)


@ALL
def test_a_key_makes_the_order_of_the_tokens_irrelevant(name: str) -> None:
    encoder = biased(make_encoder(**VARIANTS[name]))
    x, valid = random_tokens(16, (12, 7))
    positions, key, bias = (
        random_positions(encoder, valid),
        torch.rand(2, 12),
        torch.randn(2, 4, 12, 12),
    )
    order = torch.stack([torch.randperm(12), torch.cat([torch.randperm(7), torch.arange(7, 12)])])
    event = torch.arange(2)[:, None]
    rows, columns = order[:, :, None], order[:, None, :]
    shuffled_bias = bias[event[:, None], :, rows, columns].permute(0, 3, 1, 2)
    expected = encoder(x, valid, key, bias, positions)[event, order]
    positions = None if positions is None else positions[event, order]
    out = encoder(x[event, order], valid, key[event, order], shuffled_bias, positions)
    assert_close(out, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("window", [None, 6])
def test_rotary_on_phi_is_equivariant_to_a_rotation_of_the_event(
    mixed: bool, window: int | None
) -> None:
    def rotary(head_dim: int, num_heads: int) -> Rotary:
        return ROTARY(head_dim, num_heads, mixed=mixed)

    encoder = make_encoder(rotary=rotary, window=window, wrap=window is not None)
    x, valid = random_tokens(16, (15, 8))
    positions = random_positions(encoder, valid)
    expected = encoder(x, valid, positions[..., 0], positions=positions)
    phi = torch.remainder(positions[..., 0] + 2.0 + math.pi, 2 * math.pi) - math.pi
    turned = torch.stack([phi, positions[..., 1]], -1)
    out = encoder(x, valid, phi, positions=turned)
    assert_close(out, expected, atol=2e-5, rtol=1e-4)
    spoilt = turned.clone()
    spoilt[:, 0, 0] += 0.5
    assert (encoder(x, valid, phi, positions=spoilt) - expected).abs().max() > 1e-4


@pytest.mark.parametrize(
    "offset_bias", [ALiBi, lambda num_heads: RelativeBias(num_heads, 9)], ids=["alibi", "relative"]
)
@pytest.mark.parametrize("window", [None, 6])
def test_wrapped_offsets_are_equivariant_to_a_cyclic_shift(
    offset_bias: object, window: int | None
) -> None:
    encoder = biased(make_encoder(offset_bias=offset_bias, window=window, wrap=True))
    x, valid = random_tokens(16, (15,))
    expected = encoder(x, valid).roll(4, 1)
    assert_close(encoder(x.roll(4, 1), valid), expected, atol=2e-5, rtol=1e-4)
    open_encoder = make_encoder(offset_bias=offset_bias, window=window)
    open_encoder.load_state_dict(encoder.state_dict())
    out = open_encoder(x.roll(4, 1), valid) - open_encoder(x, valid).roll(4, 1)
    assert out.abs().max() > 1e-4


@ALL
def test_autocast_stays_close_and_finite(name: str) -> None:
    encoder = make_encoder(depth=1, **VARIANTS[name])
    x, valid = random_tokens(16)
    positions = random_positions(encoder, valid)
    with torch.autocast("cpu", torch.bfloat16):
        out = encoder(x, valid, positions=positions)
    assert_close(out.float(), encoder(x, valid, positions=positions), atol=0.1, rtol=0.1)


@ALL
def test_what_describes_places_does_not_decay(name: str) -> None:
    encoder = make_encoder(**VARIANTS[name])
    decayed = {id(parameter) for parameter in parameter_groups(encoder)[0]["params"]}
    for owner in (encoder.offset_bias, encoder.rotary):
        parameters = [] if owner is None else owner.parameters()
        assert not decayed & {id(parameter) for parameter in parameters}


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["sdpa", "local"])
def test_a_compiled_encoder_gives_the_same_answer_and_compiles_twice_at_most(backend: str) -> None:
    torch.compiler.reset()
    encoder = make_encoder(depth=2, backend=backend, **(VARIANTS["everything"] | {"dense": Dense}))
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(encoder, backend=counter, fullgraph=True)
    for lengths in ((9, 0, 14, 1), (5, 17), (30, 30, 3), (8,) * 5, (2, 41, 7)):
        x, valid = random_tokens(16, lengths)
        positions, key = random_positions(encoder, valid), torch.rand(valid.shape)
        gradients = []
        for network in (encoder, compiled):
            out = network(x, valid, key, positions=positions)
            gradients.append(
                [out, *torch.autograd.grad(out.square().sum(), [*encoder.parameters()])]
            )
        for expected, found in zip(*gradients, strict=True):
            assert_close(found, expected, atol=1e-4, rtol=1e-3)
    assert counter.frame_count <= 2


@ALL
def test_checkpointed_activations_give_the_same_gradients(name: str) -> None:
    encoder = make_encoder(depth=2, **VARIANTS[name])
    x, valid = random_tokens(16)
    positions = random_positions(encoder, valid)
    gradients = []
    for run in (encoder, partial(checkpoint, encoder, use_reentrant=False)):
        out = run(x, valid, positions=positions)
        gradients.append(torch.autograd.grad(out.square().sum(), [*encoder.parameters()]))
    for expected, found in zip(*gradients, strict=True):
        assert torch.equal(found, expected)
