"""Entropy and sparsity are those of the weights, with and without the pair bias."""

# B events, H heads, M queries, N keys

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from deploy.tiny import FEATURES, TinyNet
from hepattn.deploy.attention_maps import LayerMeans, main, single_events, watch
from hepattn.nn.attention import AttentionOptions
from hepattn.nn.attention_maps import record_attention
from hepattn.nn.encoder import Encoder
from hepattn.training.load import load_run


def visible(*counts: int, num_keys: int) -> Tensor:
    return (torch.arange(num_keys) < torch.tensor(counts)[:, None]).view(1, 1, -1, num_keys)


def measure(rows: list[list[float]], seen: Tensor) -> dict[str, list[float]]:
    means = LayerMeans()
    means.add(torch.tensor([[rows]]), seen)
    return means.values()


def test_equal_weights_have_entropy_one_and_no_sparsity() -> None:
    found = measure([[0.05] * 20], visible(20, num_keys=20))
    assert found["entropy"] == pytest.approx([1.0])
    assert found["sparsity"] == pytest.approx([0.05])  # 19 of 20 keys hold 95 %


def test_a_single_key_that_has_all_the_weight_has_no_entropy() -> None:
    found = measure([[0.0, 1.0, 0.0, 0.0]], visible(4, num_keys=4))
    assert found["entropy"] == pytest.approx([0.0])
    assert found["sparsity"] == pytest.approx([0.75])


def test_only_visible_keys_count_and_queries_with_one_key_or_none_do_not() -> None:
    rows = [[0.5, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    found = measure(rows, visible(2, 1, 0, num_keys=4))
    assert found["entropy"] == pytest.approx([1.0])
    assert found["sparsity"] == pytest.approx([0.0])


def test_means_are_over_the_queries_of_all_events() -> None:
    means = LayerMeans()
    for weights in ([[0.5, 0.5], [1.0, 0.0]], [[0.25, 0.75]]):
        means.add(torch.tensor([[weights]]), visible(*[2] * len(weights), num_keys=2))
    mixed = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    assert means.values()["entropy"] == pytest.approx([(1 + 0 + mixed) / 3])


def test_weights_without_bias_are_those_of_a_network_whose_bias_is_zero() -> None:
    net = TinyNet(FEATURES, 3).eval()
    inputs = (torch.randn(1, 7, 2), torch.rand(1, 7, 4), torch.ones(1, 7, dtype=torch.bool))
    found = watch(net, inputs)
    assert list(found["weights without bias"]) == ["layers.0"]  # the only one with a bias
    nn.init.zeros_(net.pair)
    expected = watch(net, inputs)["weights"]["layers.0"]
    assert_close(found["weights without bias"]["layers.0"], expected)
    assert not torch.allclose(found["weights"]["layers.0"], expected)


def test_a_query_attends_to_all_that_it_is_said_to_see() -> None:
    encoder = Encoder(8, 1, AttentionOptions(num_heads=2), window=4, wrap=True).eval()
    valid = torch.arange(11) < torch.tensor([[11], [7]])
    with (
        record_attention(encoder) as weights,
        record_attention(encoder, quantity="visible") as seen,
    ):
        encoder(torch.randn(2, 11, 8), valid)
    (name,) = seen
    for event, n in enumerate((11, 7)):
        attends = (weights[name][event, :, :n] > 0).all(0)
        assert torch.equal(seen[name][event, 0, :n], attends)
        assert int(attends.sum()) == 5 * n


def test_events_come_one_by_one_without_padding(tiny_run: Path) -> None:
    with pytest.warns(UserWarning, match="left out 2 events"):
        events = list(single_events(load_run(tiny_run), max_tokens=8))
    assert [x.shape[1] for x, _, _ in events] == [8, 7, 6, 8]
    assert all(valid.all() for _, _, valid in events)


def test_the_tool_writes_maps_and_numbers_and_keeps_earlier_ones(tiny_run: Path) -> None:
    for folder in ("attention_maps", "attention_maps_2"):
        main([str(tiny_run), "--num", "2", "--without_bias", "--data.batch_size", "2"])
        files = {path.name for path in (tiny_run / "eval" / folder).iterdir()}
        maps = {f"event_{i}{bias}.png" for i in range(2) for bias in ("", "_without_bias")}
        assert files == {*maps, "layers.png", "layers.json"}
    content = json.loads((tiny_run / "eval" / "attention_maps" / "layers.json").read_text())
    assert content["num_events"] == 2
    assert list(content["weights"]) == ["layers.0", "layers.1"]
    assert list(content["weights without bias"]) == ["layers.0"]
    assert len(content["weights"]["layers.0"]["entropy"]) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num", "0"], "--num=0"),
        (["--layers", "decoder"], "no attention layer of this library with 'decoder'"),
    ],
)
def test_bad_options_are_named(
    options: list[str], message: str, tiny_run: Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        main([str(tiny_run), *options])
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
