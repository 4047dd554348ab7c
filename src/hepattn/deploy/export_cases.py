"""Batches on which an exported network has to answer as the network itself."""

# B events, N tokens, F columns, P slots of a kind of objects

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Inputs = tuple[Tensor, ...]
VALID = "valid"


class Case(NamedTuple):
    """What a network is called with, and what is special about it."""

    name: str
    inputs: Inputs


def cuts(batches: Sequence[Inputs]) -> Iterator[Case]:
    """Batches of other numbers of events and tokens."""
    for batch in batches:
        B, N = batch[0].shape[:2]
        for num_events, num_tokens in dict.fromkeys([(B, N), (1, N), (B, N // 2)]):
            if num_tokens >= 2:
                inputs = tuple(_cut(x, num_events, num_tokens) for x in batch)
                yield Case(f"{num_events} x {num_tokens}", inputs)


def _cut(x: Tensor, num_events: int, num_tokens: int) -> Tensor:
    return x[:num_events] if x.dim() == 1 else x[:num_events, :num_tokens]


def paddings(batches: Sequence[Inputs], names: Sequence[str]) -> Iterator[Case]:
    """Batches of other numbers of events and of other objects in them.

    Behind the input ``valid`` (B, N) there is one (B, P, F) for each kind of object, and the P add
    up to N. Objects that are taken away leave their columns behind, as padding.

    Args:
        batches: Test batches.
        names: Names of the inputs.
    """
    for batch in batches:
        yield Case("as they are", batch)
        yield Case("one event", tuple(x[:1] for x in batch))
        place = names.index(VALID) if VALID in names else len(names)
        kinds = batch[place + 1 :]
        if not kinds:
            continue
        yield Case("all slots real", _fill(batch, place))
        yield Case("NaN in padding", _spoil(batch, place))
        valid, behind = batch[place], batch[place + 1 :]
        yield Case("no objects", (*batch[:place], torch.zeros_like(valid), *behind))
        for name, slots in zip(names[place + 1 :], _slots(kinds), strict=True):
            fewer = valid.clone()
            fewer[:, slots] = False
            yield Case(f"no {name}", (*batch[:place], fewer, *behind))


def _slots(kinds: Inputs) -> Iterator[slice]:
    """Where each kind of object is among the N slots."""
    first = 0
    for kind in kinds:
        yield slice(first, first + kind.shape[1])
        first += kind.shape[1]


def _spoil(batch: Inputs, place: int) -> Inputs:
    """Put NaN into each padded slot."""
    spoilt = [x.clone() for x in batch]
    padded = ~batch[place]
    for x in spoilt[:place]:
        if x.dim() == 3:
            x[padded] = torch.nan
    for kind, slots in zip(spoilt[place + 1 :], _slots(batch[place + 1 :]), strict=True):
        kind[padded[:, slots]] = torch.nan
    return tuple(spoilt)


def _fill(batch: Inputs, place: int) -> Inputs:
    """Copy a real object of its kind into each padded slot, where the batch has one."""
    filled = [x.clone() for x in batch]
    valid = batch[place]
    of_all_kinds = [x for x in filled[:place] if x.dim() == 3]
    for kind, slots in zip(filled[place + 1 :], _slots(batch[place + 1 :]), strict=True):
        real = valid[:, slots]
        if real.any():
            for x in (kind, *(y[:, slots] for y in of_all_kinds)):
                x[~real] = x[real][0]
            filled[place][:, slots] = True
    return tuple(filled)
