"""Random requests to attention, as hypothesis draws them, and their plans on other devices."""

from dataclasses import replace

import torch
from hypothesis import strategies as st
from torch import Tensor

from hepattn.ops.attention import (
    Full,
    Pattern,
    Plan,
    Registers,
    Window,
    make_packed_plan,
    make_plan,
)
from hepattn.ops.attention.backend import ABILITIES
from reference.attention import Case, make_case, run_case


@st.composite
def patterns(draw: st.DrawFn) -> Pattern:
    wrap = draw(st.booleans())
    if draw(st.integers(0, 3)) == 0:
        return Full(wrap)
    return Window(2 * draw(st.integers(1, 4)), wrap)


@st.composite
def cases(draw: st.DrawFn, *backends: str, is_cross: bool | None = None) -> Case:
    """Any request, in any combination, that all of these backends accept.

    Lengths gather where a window just covers an event.
    """
    accepted = frozenset.intersection(*(ABILITIES[name] for name in backends))

    def asks_for(request: str, odds: int = 2) -> bool:
        return request in accepted and draw(st.integers(0, odds)) == 0

    pattern = draw(patterns())
    registers = Registers(
        draw(st.integers(0, 3)) if "registers" in accepted else 0,
        draw(st.sampled_from([None, 1, 2, 5])),
    )
    lengths = st.integers(0, 13)
    if isinstance(pattern, Window):
        edges = [0, 1, pattern.half + 1, pattern.half + 2, pattern.size + 1, pattern.size + 2]
        lengths = st.one_of(lengths, st.sampled_from(edges))
    num_keys = [registers.num + n for n in draw(st.lists(lengths, min_size=1, max_size=3))]
    cross = "cross" if isinstance(pattern, Full) else "cross_window"
    is_cross = asks_for(cross) if is_cross is None else is_cross
    num_queries = [draw(st.integers(0, 9)) for _ in num_keys] if is_cross else None
    num_key_heads = draw(st.sampled_from([1, 2]))
    num_heads = num_key_heads * draw(st.sampled_from([1, 2]))
    packed = asks_for("packed")
    bias_shapes = [(1 if packed else n, h) for n in (1, len(num_keys)) for h in (1, num_heads)]
    offset_shapes = [(h, 2 * k + 1) for h in (1, num_heads) for k in (0, 2, 20)]
    dtypes = {"float64": torch.float64, "float32": torch.float32, "half": torch.bfloat16}
    return make_case(
        pattern,
        num_keys,
        query_lengths=num_queries,
        num_heads=num_heads,
        num_key_heads=num_key_heads,
        dim=draw(st.sampled_from([1, 4, 5])),
        dtype=draw(st.sampled_from([dtypes[name] for name in dtypes if name in accepted])),
        bias_shape=draw(st.sampled_from(bias_shapes)) if asks_for("bias") else None,
        offset_bias_shape=(
            draw(st.sampled_from(offset_shapes)) if asks_for("offset_bias") else None
        ),
        scale=draw(st.sampled_from([None, 0.3, -1.0])),
        registers=registers,
        centres=is_cross and draw(st.booleans()),
        mask=asks_for("mask", 3),
        packed=packed,
        extra=draw(st.sampled_from([1, 0, 3])),
        seed=draw(st.integers(0, 9)),
    )


def dense_reference(case: Case) -> dict[str, Tensor]:
    """The output and every gradient over dense masks in float64, for events that are too long for
    the definition's loop.
    """
    names = ("q", "k", "v", "grad_out", "bias", "offset_bias")
    tensors = {name: getattr(case, name) for name in names}
    doubles = {name: None if x is None else x.double() for name, x in tensors.items()}
    return run_case(replace(case, **doubles), "sdpa")


def plan_on(case: Case, device: str) -> Plan:
    """The plan of a case on a device."""
    options = {
        "registers": case.registers,
        "centres": None if case.centres is None else case.centres.to(device),
    }
    if case.packed:
        plan = make_packed_plan(
            case.pattern,
            case.lengths,
            case.query_lengths,
            num_tokens=case.k.shape[2],
            num_queries=None if case.query_lengths is None else case.q.shape[2],
            device=device,
            **options,
        )
    else:
        is_cross = case.query_lengths is not None
        query_valid = case.query_valid.to(device) if is_cross else None
        plan = make_plan(case.pattern, case.key_valid.to(device), query_valid, **options)
    return plan if case.mask is None else plan.restrict(case.mask.to(device))
