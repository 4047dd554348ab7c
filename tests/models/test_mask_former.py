"""The mask former answers about the hits in the order in which they came, whatever pads them."""

# B events, M queries, N tokens

import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from hepattn.models.mask_decoder import MaskDecoder
from hepattn.models.mask_former import FoundObjects, MaskFormer
from hepattn.nn.attention import Attention, AttentionOptions
from hepattn.nn.encoder import Encoder
from hepattn.nn.helix_rotary import HelixRotary
from hepattn.nn.normalise import Feature
from hepattn.nn.positional import Coordinate, SinusoidalEncoding
from hepattn.nn.queries import DynamicQueries, LearnedQueries
from hepattn.nn.rotary import Rotary

FEATURES = (Feature("r", scale=0.01), Feature("phi"), Feature("z", scale=0.001))
COORDINATES = (Coordinate("phi", kind="harmonic"), Coordinate("r", scale=0.01))
COLUMNS = [1, 0]  # where these stand among the features
HEADS = AttentionOptions(num_heads=2)
POSITION = partial(SinusoidalEncoding, coordinates=COORDINATES, alpha=10.0)
ROTARY = partial(Rotary, coordinates=[Coordinate("z", scale=1e-3), COORDINATES[0]])
QUERIES = {
    "dynamic": partial(DynamicQueries, num_queries=5),
    "learned": partial(LearnedQueries, num_queries=4),
}
ALL = pytest.mark.parametrize("kind", QUERIES)


def make(kind: str, sort_by: str | None = "phi", **options: object) -> MaskFormer:
    """Windows and rotary encodings where the hits are sorted, so that their order matters."""
    torch.manual_seed(0)
    local = {} if sort_by is None else {"window": 4, "wrap": True, "rotary": ROTARY}
    options = {
        "encoder": Encoder(16, 1, HEADS, **local),
        "queries": QUERIES[kind],
        "decoder": partial(MaskDecoder, depth=2, attention=HEADS, num_parameters=2, **local),
        "position": POSITION,
    } | options
    net = MaskFormer(FEATURES, sort_by=sort_by, **options).eval()
    for module in net.modules():
        if isinstance(module, Attention):  # or all scores are alike, and nothing is tested
            nn.init.normal_(module.query.weight)
    nn.init.normal_(net.decoder.head.mask.contract.weight, std=2.0)
    return net


def random_hits(*lengths: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    valid = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    r = 30 + 150 * torch.rand(valid.shape)
    phi = (2 * torch.rand(valid.shape) - 1) * math.pi
    return torch.stack([r, phi, 1000 * torch.randn(valid.shape)], -1), valid


def assert_same(found: FoundObjects, expected: FoundObjects, order: Tensor | None = None) -> None:
    """The same answers, about tokens in this order (N,) of the expected ones."""
    if order is None:
        order = torch.arange(expected.layers[0].mask_logit.shape[-1])
    for ours, theirs in zip(found.layers, expected.layers, strict=True):
        theirs = theirs._replace(mask_logit=theirs.mask_logit[..., order])
        for name in ("object_logit", "mask_logit", "parameters"):
            assert_close(getattr(ours, name), getattr(theirs, name), atol=1e-4, rtol=1e-4)
    assert torch.equal(found.query_valid, expected.query_valid)
    assert (found.seed is None) == (expected.seed is None)
    if expected.seed is not None:
        assert torch.equal(order[found.seed], expected.seed)
        assert_close(found.seed_logit, expected.seed_logit[:, order], atol=1e-5, rtol=1e-4)


@ALL
def test_sorted_and_shuffled_hits_get_the_same_answers(kind: str) -> None:
    net = make(kind)
    x, valid = random_hits(12)
    order = x[0, :, 1].argsort()
    assert (order != torch.arange(12)).any()
    assert_same(net(x[:, order], valid), net(x, valid), order)


def test_sorting_is_what_sorted_input_would_give() -> None:
    net, plain = make("dynamic"), make("dynamic")
    plain.sort_column = None
    x, valid = random_hits(12)
    order = x[0, :, 1].argsort()
    assert_same(plain(x[:, order], valid), net(x, valid), order)
    shuffled = plain(x, valid).layers[-1].mask_logit
    assert not torch.allclose(shuffled, net(x, valid).layers[-1].mask_logit)  # so windows matter


@ALL
def test_shuffled_hits_give_shuffled_masks_without_sorting_too(kind: str) -> None:
    net = make(kind, sort_by=None)
    x, valid = random_hits(12)
    order = torch.randperm(12)
    found, expected = net(x[:, order], valid), net(x, valid)
    if kind == "dynamic":  # queries come in the order of their seeds
        place = order[found.seed].argsort(1)[0]
        layers = [type(a)(*(None if f is None else f[:, place] for f in a)) for a in found.layers]
        found = found._replace(layers=layers, seed=found.seed[:, place])
    assert_same(found, expected, order)


@ALL
@pytest.mark.parametrize("sort_by", ["phi", None])
def test_an_event_alone_gets_the_answers_that_it_gets_in_a_padded_batch(
    kind: str, sort_by: str | None
) -> None:
    net = make(kind, sort_by)
    lengths = (11, 0, 3, 8)
    x, valid = random_hits(*lengths)
    found = net(x, valid)
    assert all(answer.mask_logit.isfinite().all() for answer in found.layers)
    for event, n in enumerate(lengths):
        if n == 0:
            continue
        m = int(found.query_valid[event].sum())
        layers = [type(a)(*(f if f is None else f[event, None, :m] for f in a)) for a in found[0]]
        layers = [answer._replace(mask_logit=answer.mask_logit[..., :n]) for answer in layers]
        row = FoundObjects(layers, found.query_valid[event, None, :m], None, None)
        if kind == "dynamic":
            seed, seed_logit = found.seed[event, None, :m], found.seed_logit[event, None, :n]
            row = row._replace(seed=seed, seed_logit=seed_logit)
        assert_same(net(x[event, None, :n], valid[event, None, :n]), row)


@ALL
def test_padding_may_hold_anything(kind: str) -> None:
    net = make(kind)
    x, valid = random_hits(9, 4)
    expected = net(x.masked_fill(~valid.unsqueeze(-1), 0.0), valid)
    found = net(x.masked_fill(~valid.unsqueeze(-1), math.nan), valid)
    for ours, theirs in zip(found.layers, expected.layers, strict=True):
        assert torch.equal(ours.object_logit, theirs.object_logit)
        assert torch.equal(ours.mask_logit, theirs.mask_logit)


def decoder_input(net: MaskFormer, x: Tensor, valid: Tensor) -> tuple[dict, FoundObjects]:
    """The keywords of the decoder's call, and what the network found."""
    seen: dict = {}

    def record(_: nn.Module, args: tuple, kwargs: dict) -> None:
        seen.update(kwargs, queries=args[0])

    handle = net.decoder.register_forward_pre_hook(record, with_kwargs=True)
    found = net(x, valid)
    handle.remove()
    return seen, found


def test_a_dynamic_query_carries_the_encoding_of_its_hit() -> None:
    net = make("dynamic")
    x, valid = random_hits(11, 7)
    seen, found = decoder_input(net, x, valid)
    for event in range(2):
        for query, seed in enumerate(found.seed[event][found.query_valid[event]]):
            hit = x[event, seed]
            expected = net.embedding.position(hit[COLUMNS].view(1, 1, 2))
            assert_close(seen["positions"][0][event, query], expected[0, 0])
            assert_close(seen["coordinates"][0][event, query], hit[[2, 1]])  # of the rotary


def test_a_learned_query_carries_the_encoding_of_its_angle() -> None:
    net = make("learned")
    seen, _ = decoder_input(net, *random_hits(11, 7))
    for query in range(4):
        phi = -math.pi + 2 * math.pi * query / 4
        expected = net.embedding.position(torch.tensor([[[phi, 0.0]]]))[0, 0]
        for event in range(2):
            assert_close(seen["positions"][0][event, query], expected, atol=1e-5, rtol=1e-5)
            assert_close(seen["coordinates"][0][event, query], torch.tensor([0.0, phi]))


def test_tokens_carry_the_encoding_of_their_own_place() -> None:
    net = make("dynamic")
    x, valid = random_hits(11)
    seen, _ = decoder_input(net, x, valid)
    in_order = x[:, x[0, :, 1].argsort()]
    assert_close(seen["positions"][1], net.embedding.position(in_order[..., COLUMNS]))
    assert_close(seen["coordinates"][1], in_order[..., [2, 1]])


@ALL
def test_every_parameter_gets_a_gradient(kind: str) -> None:
    net = make(kind)
    found = net(*random_hits(11, 6))
    fields = [field for answer in found.layers for field in answer if field is not None]
    if found.seed_logit is not None:
        fields.append(found.seed_logit)
    torch.stack([field.square().sum() for field in fields]).sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in net.parameters())


def test_unknown_columns_are_named() -> None:
    with pytest.raises(ValueError, match="'theta' is not in the feature list"):
        make("dynamic", sort_by="theta")
    eta = [Coordinate("eta")]
    with pytest.raises(ValueError, match="'eta' is not in the feature list"):
        make("dynamic", position=partial(SinusoidalEncoding, coordinates=eta))
    rotary = partial(Rotary, coordinates=eta)
    with pytest.raises(ValueError, match="'eta' is not in the feature list"):
        make("dynamic", decoder=partial(MaskDecoder, attention=HEADS, rotary=rotary))


def test_an_encoder_that_reads_out_no_tokens_is_refused() -> None:
    encoder = Encoder(16, 1, HEADS, num_registers=1, read_out="cls")
    with pytest.raises(ValueError, match="read_out='cls' leaves no tokens"):
        make("dynamic", encoder=encoder)


def test_a_turned_event_gets_the_same_answers_if_nothing_embedded_turns() -> None:
    features = (Feature("r", scale=0.01), Feature("phi", embed=False), Feature("eta"))
    options = {"window": 6, "wrap": True, "rotary": HelixRotary}
    heads = AttentionOptions(num_heads=2, position_init=5.0)
    net = MaskFormer(
        features,
        Encoder(16, 1, heads, **options),
        partial(DynamicQueries, num_queries=5),
        partial(MaskDecoder, attention=heads, depth=2, mask_by_position=True, **options),
        sort_by="phi",
    ).eval()
    x, valid = random_hits(12)
    x[..., 2] /= 1000.0  # as a pseudorapidity
    turned = x.clone()
    turned[..., 1] = torch.remainder(x[..., 1] + 2.0 + math.pi, 2 * math.pi) - math.pi
    found, again = net(x, valid), net(turned, valid)
    order, order_again = found.seed[0].argsort(), again.seed[0].argsort()
    assert torch.equal(found.seed[0][order], again.seed[0][order_again])
    for ours, theirs in zip(again.layers, found.layers, strict=True):
        for name in ("object_logit", "mask_logit"):
            turned_answer = getattr(ours, name)[0][order_again]
            assert_close(turned_answer, getattr(theirs, name)[0][order], atol=1e-3, rtol=1e-3)
