"""FSDP on the CPU: two processes, each with half of every parameter."""

import os
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch.strategies import FSDPStrategy, Strategy
from torch import multiprocessing
from torch.distributed.fsdp import FullyShardedDataParallel

from hepattn.nn.encoder_layer import EncoderLayer
from hepattn.nn.normalise import Feature
from hepattn.training.configs import overlays
from hepattn.training.module import BaseModule
from hepattn.training.optimizer import remember_dimensions
from training.toy import ToyModule, ToyNet


def module() -> BaseModule:
    torch.manual_seed(0)
    features = (Feature("x"), Feature("y"))
    return ToyModule(lambda f: ToyNet(f, dropout=0.0), features, torch.optim.AdamW)


def train(rank: int, port: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo")
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    model = module()
    remember_dimensions(model)
    names = {id(p): name for name, p in model.named_parameters()}
    model.net = FullyShardedDataParallel(
        model.net, device_id=torch.device("cpu"), use_orig_params=True
    )
    groups = [[names[id(p)] for p in group["params"]] for group in model.parameter_groups()]
    dimensions = {p.ndim for p in model.parameters()}
    hits = torch.randn(4, 5, 2, generator=torch.Generator().manual_seed(1))
    (model.net(hits).square().mean() * 100).backward()
    model._trainer = SimpleNamespace(strategy=SimpleNamespace(model=model.net))
    model.configure_gradient_clipping(None, 0.1)
    ours = sum(float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None)
    torch.save((groups, dimensions, ours), Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_groups_and_clipping_are_those_of_whole_parameters(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(train, (port, str(tmp_path)), nprocs=2)
    whole = module()
    names = {id(p): name for name, p in whole.named_parameters()}
    expected = [[names[id(p)] for p in group["params"]] for group in whole.parameter_groups()]
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    assert [groups for groups, _, _ in found] == [expected, expected]
    assert all(dimensions == {1} for _, dimensions, _ in found)
    assert sum(squares for _, _, squares in found) == pytest.approx(0.1**2, rel=1e-3)


def test_the_overlay_makes_the_strategy_it_says() -> None:
    config = yaml.safe_load(overlays()["fsdp"].read_text())["trainer"]["strategy"]
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Strategy, "strategy")
    strategy = parser.instantiate(parser.parse_object({"strategy": config})).strategy
    assert isinstance(strategy, FSDPStrategy)
    assert strategy.kwargs["auto_wrap_policy"]._module_classes == {EncoderLayer}
