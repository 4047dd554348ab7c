"""The encoder: what it may see, what it must see, and what its options do."""

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from experiments.xec.cases import (
    TINY,
    Seen,
    covering_options,
    describe,
    gradients,
    hide,
    seen,
    settle,
    spoil,
)
from hepattn.data.xec import XecBatch
from hepattn.experiments.xec.encoder import EncoderOptions, XecEncoder
from hepattn.experiments.xec.scaling import ScalingOptions
from hepattn.nn.encoder import Encoder
from hepattn.physics import xec

FIRST = ScalingOptions(time_reference="first")  # sensors do not meet before they are tokens
FACES = {
    "split": ("inner", "us", "ds", "coarse", "centre", "top", "bottom", "closeup"),
    "coarse": ("inner", "us", "ds", "coarse", "top", "bottom", "closeup"),
    "finegrid": ("inner", "us", "ds", "outer", "top", "bottom", "closeup"),
}


def make(**options: Any) -> XecEncoder:
    torch.manual_seed(0)
    return settle(XecEncoder(replace(TINY, **options)))


@pytest.mark.parametrize("options", covering_options(), ids=describe)
def test_what_is_not_visible_has_no_influence(options: dict[str, str], events: XecBatch) -> None:
    encoder, given = make(**options), hide(seen(events))
    plain, found = encoder(*spoil(given, 0.0)), encoder(*spoil(given))
    for ours, theirs in zip(found, plain, strict=True):
        assert torch.equal(ours, theirs)
    expected = gradients(encoder, plain.tokens)
    for name, gradient in gradients(encoder, found.tokens).items():
        assert gradient.isfinite().all(), name
        assert torch.equal(gradient, expected[name]), name


def test_what_is_not_visible_has_no_influence_in_training(events: XecBatch) -> None:
    encoder = make(dropout=0.2, drop_path=0.3).train()
    given, tokens = hide(seen(events)), []
    for junk in (0.0, None):
        torch.manual_seed(3)
        tokens.append(encoder(*spoil(given, junk)).tokens)
    assert torch.equal(*tokens)


def test_masking_of_the_seed_counts_what_is_not_visible_as_empty(events: XecBatch) -> None:
    given, everything = hide(seen(events)), torch.ones_like(events.valid)
    sparse, seed = make(), make(masking="seed")
    tokens = seed(*spoil(given)).tokens
    assert torch.equal(tokens, seed(*spoil(given, 0.0)).tokens)
    assert not torch.allclose(tokens, sparse(*given).tokens, rtol=1e-3)
    full = given._replace(photons=events.photons, valid=everything, time_valid=everything)
    assert_close(seed(*full).tokens, sparse(*full).tokens)


def influence(encoder: XecEncoder, given: Seen, name: str) -> Tensor:
    """Sensors that change some token of an event (S)."""
    value = getattr(given, name).clone().requires_grad_()
    tokens = encoder(*given._replace(**{name: value})).tokens
    weight = torch.linspace(-1, 2, tokens.numel()).view(tokens.shape)
    (gradient,) = torch.autograd.grad((tokens * weight).sum(), value)
    assert gradient.isfinite().all()
    return (gradient != 0).any(0)


@pytest.mark.parametrize("pool", ["attention", "adaptive", "bilinear"])
@pytest.mark.parametrize(
    ("outer", "number"), [("split", 4760), ("finegrid", 4760), ("coarse", 4742)]
)
@pytest.mark.parametrize("name", ["photons", "time"])
def test_every_visible_sensor_has_influence(outer: str, number: int, pool: str, name: str) -> None:
    encoder = make(outer=outer, pool=pool, scaling=FIRST, moments=False)
    everything = torch.ones(1, xec.NUM_SENSORS, dtype=torch.bool)
    light = 50 + 1e3 * torch.rand(1, xec.NUM_SENSORS)
    found = influence(encoder, Seen(light, torch.rand_like(light), everything, everything), name)
    assert found.sum() == number
    assert torch.equal(found, encoder.faces.covered)
    assert found[4742:].all() or outer == "coarse"  # the 18 sensors that the centre adds


def test_a_sensor_without_a_time_still_shows_its_photons() -> None:
    encoder = make(scaling=FIRST)
    valid = torch.ones(1, xec.NUM_SENSORS, dtype=torch.bool)
    light = 50 + 1e3 * torch.rand(1, xec.NUM_SENSORS)
    given = Seen(light, torch.rand_like(light), valid, ~valid)
    assert influence(encoder, given, "photons").all()
    assert not influence(encoder, given, "time").any()


def test_a_time_needs_a_visible_sensor(events: XecBatch) -> None:
    given = hide(seen(events))
    late = given._replace(time=given.time + 3.0 * ~given.valid, time_valid=events.valid)
    encoder = make()
    expected = encoder(*given._replace(time_valid=events.valid & given.valid)).tokens
    assert torch.equal(encoder(*late).tokens, expected)


def sensors_of(token: str) -> Tensor:
    """Sensors that a token shows."""
    token = "inner" if token == "closeup" else token  # around the brightest of them
    if token in ("coarse", "centre"):
        return torch.from_numpy(xec.grid(token).ravel().copy())
    return torch.from_numpy(xec.sensors().face == xec.FACES.index(token)).nonzero()[:, 0]


@pytest.mark.parametrize("outer", FACES)
def test_tokens_stand_in_the_order_of_the_faces(outer: str, events: XecBatch) -> None:
    encoder, given = make(outer=outer, scaling=FIRST), seen(events)
    before: list[Tensor] = []
    encoder.position.register_forward_pre_hook(lambda _, args: before.append(args[0]))
    assert encoder(*given).tokens.shape == (3, len(FACES[outer]), TINY.dim)
    assert encoder.num_tokens == len(FACES[outer])
    for name in FACES[outer]:
        brighter = given.photons.clone()
        brighter[:, sensors_of(name)] += 500.0
        encoder(*given._replace(photons=brighter))
        changed = (before[-1] != before[0]).flatten(2).any(2).all(0)
        own = set(sensors_of(name).tolist())
        expected = [bool(own & set(sensors_of(other).tolist())) for other in FACES[outer]]
        assert changed.tolist() == expected


@pytest.mark.parametrize("outer", FACES)
def test_moments_tell_the_light_of_each_face_and_where_it_is(outer: str, events: XecBatch) -> None:
    encoder, given = make(outer=outer), hide(seen(events))
    told: list[Tensor] = []
    encoder.moments.register_forward_pre_hook(lambda _, args: told.append(args[0]))
    encoder(*spoil(given))
    position = torch.from_numpy(xec.sensors().position.copy()).float()
    for token, name in enumerate(FACES[outer]):
        if name in ("outer", "closeup"):
            continue  # an outer sensor has several cells
        own = sensors_of(name)
        for event in range(3):
            here = own[given.valid[event, own]]
            light = given.photons[event, here].clamp(min=0)
            mean = math.log1p(float(light.sum()) / max(len(here), 1))
            expected = [torch.tensor([(mean - 4.0) / 2.0, len(here) / len(own)])]
            for weight in (light, light.square()):
                total = weight.sum().clamp(min=1e-6)
                expected.append((weight.unsqueeze(1) * position[here]).sum(0) / total / 50.0)
            assert_close(told[0][event, token], torch.cat(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", covering_options(6), ids=describe)
@pytest.mark.parametrize("num_visible", [0, 1])
def test_an_event_that_shows_nothing_or_one_sensor_is_encoded(
    options: dict[str, str], num_visible: int, events: XecBatch
) -> None:
    encoder, given = make(**options), seen(events)
    valid = given.valid.clone()
    valid[1] = False
    valid[1, int(given.valid[1].float().argmax())] = bool(num_visible)
    given = spoil(given._replace(valid=valid, time_valid=given.time_valid & valid))
    tokens = encoder(*given).tokens
    assert tokens.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients(encoder, tokens).values())
    others = encoder(*(x[[0, 2]] for x in given)).tokens
    assert_close(tokens[[0, 2]], others, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", covering_options(6), ids=describe)
def test_an_event_does_not_see_the_rest_of_its_batch(
    options: dict[str, str], events: XecBatch
) -> None:
    encoder, given = make(**options), hide(seen(events))
    together = encoder(*given)
    for event in range(3):
        alone = encoder(*(x[event : event + 1] for x in given))
        for ours, theirs in zip(alone, together, strict=True):
            assert_close(ours[0], theirs[event], rtol=1e-4, atol=1e-5)


OTHER: dict[str, Sequence[Any]] = {
    "dim": (32,),
    "width": (6,),
    "hex_width": (12,),
    "num_fusion_layers": (2,),
    "num_heads": (4,),
    "norm_placement": ("post", "hybrid"),
    "dropout": (0.5,),
    "drop_path": (0.5,),
    "outer": ("coarse", "finegrid"),
    "stem": ("same", "shrinking"),
    "pool": ("adaptive", "bilinear"),
    "attention": ("se", "cbam", "nonlocal"),
    "hex_mixer": ("gat",),
    "pos_embed": ("sinusoidal", "rotary", "alibi", "geometric"),
    "masking": ("seed",),
    "moments": (False,),
    "closeup": (0, 3),
    "scaling": (ScalingOptions(photon_scale=1000.0), ScalingOptions(validity=False)),
}


def test_every_option_is_tried() -> None:
    assert OTHER.keys() == {field.name for field in fields(EncoderOptions)}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in OTHER.items() for value in values]
)
def test_every_option_changes_what_the_encoder_says(
    name: str, value: object, events: XecBatch
) -> None:
    ours, other = make(), make(**{name: value})
    weights, others = ours.state_dict(), other.state_dict()
    shapes = [{key: getattr(x, "shape", None) for key, x in w.items()} for w in (weights, others)]
    if shapes[0] != shapes[1]:
        return  # another network
    given = hide(seen(events))
    other.load_state_dict({k: x for k, x in weights.items() if "extra" not in k}, strict=False)
    if name in ("dropout", "drop_path"):
        assert torch.equal(ours(*given).tokens, other(*given).tokens)
        ours, other = ours.train(), other.train()
        assert torch.equal(ours(*given).tokens, ours(*given).tokens)
    assert not torch.allclose(ours(*given).tokens, other(*given).tokens, rtol=1e-3)


def test_places_enter_as_the_option_says() -> None:
    def kinds(pos_embed: str) -> tuple[bool, bool, bool]:
        encoder = make(pos_embed=pos_embed)
        tokens, bias, places = encoder.position(torch.zeros(2, encoder.num_tokens, TINY.dim))
        return bool(tokens.any()), bias is not None, places is not None

    for pos_embed in ("learnable", "sinusoidal", "geometric"):
        assert kinds(pos_embed) == (True, False, False)
    assert kinds("rotary") == (False, False, True)
    assert kinds("alibi") == (False, True, False)


def test_alibi_falls_with_the_distance_between_faces() -> None:
    _, bias, _ = make(pos_embed="alibi", outer="coarse").position(torch.zeros(1, 7, TINY.dim))
    centre = torch.tensor(xec.face_centroids(), dtype=torch.float32)
    order = [
        xec.FACES.index(name) for name in ("inner", "us", "ds", "outer", "top", "bottom", "inner")
    ]
    for head, slope in enumerate((2.0**-4, 2.0**-8)):
        for i, a in enumerate(order):
            for j, b in enumerate(order):
                expected = -slope * float((centre[a] - centre[b]).norm()) / 100
                assert float(bias[0, head, i, j]) == pytest.approx(expected, abs=1e-6)


def size(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.fixture(scope="module")
def literal() -> XecEncoder:
    """The seed's encoder."""
    scaling = ScalingOptions(validity=False)
    options = EncoderOptions(
        dim=1024,
        width=32,
        hex_width=96,
        num_fusion_layers=2,
        num_heads=8,
        norm_placement="post",
        outer="finegrid",
        stem="shrinking",
        pool="bilinear",
        moments=False,
        closeup=0,
        scaling=scaling,
    )
    return XecEncoder(options)


def test_the_literal_encoder_has_the_parameters_of_the_seed(literal: XecEncoder) -> None:
    layer = nn.TransformerEncoderLayer(1024, 8, 4096)
    fusion = size(literal.fusion)
    assert fusion == 2 * size(layer)
    assert fusion == pytest.approx(25.19e6, abs=0.005e6)
    assert size(literal.hexagon) == pytest.approx(0.404e6, abs=0.5e3)
    assert size(literal.image) == pytest.approx(0.141e6, abs=0.5e3)
    assert size(literal) == pytest.approx(25.74e6, abs=0.005e6)
    assert size(literal) == fusion + size(literal.hexagon, literal.image) + 6 * 1024


def test_pooling_between_points_makes_a_token_without_a_projection(literal: XecEncoder) -> None:
    assert isinstance(literal.image.project, nn.Identity)
    place = torch.zeros(1, 93, 44, 3)
    token = literal.image(torch.rand(1, 93, 44, 2), torch.ones(1, 93, 44).bool(), place)
    assert token.shape == (1, 1024)
    image = literal.image.stem(torch.rand(1, 93, 44, 2), None)[0]
    assert image.shape == (1, 92, 43, 32)
    assert literal.image.down(image, None)[0].shape == (1, 46, 21, 64)


def test_the_fusion_is_the_encoder_of_all_experiments() -> None:
    assert isinstance(make().fusion, Encoder)


def test_half_precision_keeps_times_and_photons(events: XecBatch) -> None:
    encoder, given = make(), hide(seen(events))
    plain = encoder(*given)
    with torch.autocast("cpu", torch.bfloat16):
        half = encoder(*given)
    assert torch.equal(half.channels, plain.channels)
    assert torch.equal(half.reference, plain.reference)
    assert_close(half.tokens.float(), plain.tokens, rtol=0.1, atol=0.1)
