"""A network starts from weights of ours or of weaver, or says what does not fit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from deploy.tiny import FEATURES, TinyNet
from hepattn.data.error import DataError
from hepattn.deploy.weaver import load_pretrained, read_weaver
from hepattn.models.particle_net import ParticleNet
from hepattn.models.particle_transformer import ParticleTransformer
from hepattn.nn.normalise import Feature
from hepattn.training.configs import ConfigError
from hepattn.training.load import load_run

KIN = [Feature(f"part_{name}") for name in ("deta", "dphi", *"abcde")]
HEAD = ("head.weight", "head.bias")


@pytest.fixture
def checkpoint(tiny_run: Path) -> Path:
    return tiny_run / "ckpts" / "best.ckpt"


def assert_same(ours: dict[str, Any], theirs: dict[str, Any], skip: str = " ") -> None:
    for key, value in ours.items():
        if isinstance(value, Tensor) and not key.startswith(skip):
            assert_close(value, theirs[key], rtol=0, atol=0)


def test_a_network_takes_all_weights_of_a_checkpoint_that_fit(
    tiny_run: Path, checkpoint: Path
) -> None:
    net = TinyNet(FEATURES, 3)
    found = load_pretrained(net, checkpoint)
    assert_same(net.state_dict(), load_run(tiny_run).module.net.state_dict())
    assert set(found.loaded) == set(net.state_dict())
    assert str(found).endswith("none is new")


@pytest.mark.parametrize(("num_classes", "new_head"), [(2, False), (3, True)])
def test_the_head_starts_anew_for_other_classes_or_when_asked(
    tiny_run: Path, checkpoint: Path, num_classes: int, new_head: bool
) -> None:
    net = TinyNet(FEATURES, num_classes)
    start = net.head.weight.clone()
    found = load_pretrained(net, checkpoint, new_head=new_head)
    assert_same(net.state_dict(), load_run(tiny_run).module.net.state_dict(), skip="head.")
    assert_close(net.head.weight, start, rtol=0, atol=0)
    assert found.new == HEAD
    assert "new are head.weight, head.bias" in str(found)


MISFITS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "another feature": (
        lambda: TinyNet((FEATURES[0], Feature("part_e_log")), 3),
        "was trained on the features",
    ),
    "another scaling": (lambda: TinyNet((FEATURES[0], Feature("part_pt_log")), 3), "differ"),
    "another size": (lambda: TinyNet(FEATURES, 3, dim=4), "has shapes embed.weight"),
    "another network": (lambda: nn.Linear(2, 3), "also holds pair, normalise"),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_weights_that_do_not_fit_are_refused(misfit: str, checkpoint: Path) -> None:
    make, message = MISFITS[misfit]
    with pytest.raises(ConfigError, match=message):
        load_pretrained(make(), checkpoint)


def test_a_file_of_something_else_is_refused(tmp_path: Path, checkpoint: Path) -> None:
    torch.save({"module.mod.weight": torch.zeros(1)}, tmp_path / "other.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ConfigError, match=r"holds neither .* keys are module\.mod\.weight"):
        read_weaver(tmp_path / "other.pt")
    with pytest.raises(ConfigError, match="no weights by name"):
        read_weaver(tmp_path / "list.pt")
    with pytest.raises(DataError, match="there is no such file"):
        read_weaver(tmp_path / "absent.pt")
    with pytest.raises(ConfigError, match="fold is for files of weaver"):
        load_pretrained(TinyNet(FEATURES, 3), checkpoint, fold=True)


@pytest.mark.data
def test_published_weights_of_particle_net_load(data_dir: Path) -> None:
    file = data_dir / "weights" / "ParticleNet_kin.pt"
    net = ParticleNet(KIN, 10)
    assert load_pretrained(net, file).new == ()
    assert_same(read_weaver(file), net.state_dict())
    assert load_pretrained(ParticleNet(KIN, 2), file).new == HEAD
    with pytest.raises(ConfigError, match="does not fit ParticleNet"):
        load_pretrained(ParticleNet(KIN[:6], 10), file)
    with pytest.raises(ConfigError, match="does not fit ParticleTransformer: it lacks"):
        load_pretrained(ParticleTransformer(KIN, 10), file)
    with pytest.raises(ConfigError, match="fold is for the Particle Transformer"):
        load_pretrained(net, file, fold=True)


@pytest.fixture(scope="module")
def transformer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformer = pytest.importorskip(
        "weaver.nn.model.ParticleTransformer", reason="needs the extra dev"
    )
    theirs = transformer.ParticleTransformer(7, 10)
    for block in (*theirs.blocks, *theirs.cls_blocks):
        nn.init.normal_(block.c_attn)
    path = tmp_path_factory.mktemp("weaver") / "part.pt"
    torch.save({f"module.mod.{key}": value for key, value in theirs.state_dict().items()}, path)
    return path


def test_weights_that_weaver_saved_load_whatever_their_prefix(transformer_file: Path) -> None:
    net = ParticleTransformer(KIN, 10)
    assert load_pretrained(net, transformer_file).new == ()
    assert_same(read_weaver(transformer_file), net.state_dict())
    assert load_pretrained(ParticleTransformer(KIN, 2), transformer_file).new == HEAD


def test_a_file_of_an_old_weaver_is_folded_only_when_asked(transformer_file: Path) -> None:
    plain = read_weaver(transformer_file)
    folded = read_weaver(transformer_file, fold=True)
    assert plain.keys() == folded.keys()
    assert any(not torch.equal(value, folded[key]) for key, value in plain.items())
