"""Fill in single sensors from what is around them and from the tokens of the faces."""

# B events, S sensors, M sensors to fill in, K neighbours, O channels to fill in

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from hepattn.experiments.xec.encoder import Encoded, EncoderOptions
from hepattn.experiments.xec.faces import Faces
from hepattn.nn.attention import Attention, AttentionOptions
from hepattn.nn.gathering import gather_objects
from hepattn.nn.pooling import masked_mean
from hepattn.nn.positional import Coordinate, SinusoidalEncoding
from hepattn.ops.attention import Full, make_plan
from hepattn.physics import xec

BANDS = 16  # features for each axis: eight frequencies, the finest of 6 cm
NUM_NEIGHBOURS = 16


class SensorsHead(nn.Module):
    """Let each sensor to fill in ask its neighbours on its face, then the tokens of all faces.

    What it then tells is how far off the mean of the scaled photons of its visible neighbours is.

    Args:
        options: The encoder's.
        num_outputs: Channels O to fill in.
        width: Features of a query and of a neighbour.
    """

    def __init__(self, options: EncoderOptions, num_outputs: int, width: int) -> None:
        super().__init__()
        sensors = xec.sensors()
        position = torch.from_numpy(np.array(sensors.position, np.float32))  # (S, 3)
        nearest = nearest_sensors(NUM_NEIGHBOURS).clone()
        self.register_buffer("neighbour", nearest, persistent=False)
        axes = [Coordinate(axis) for axis in "xyz"]  # cm
        encode = SinusoidalEncoding(3 * BANDS, axes, alpha=2 * math.pi / 6, base=32.0)
        self.register_buffer("place", encode(position.unsqueeze(0))[0], persistent=False)
        face = torch.from_numpy(np.array(sensors.face, np.int64))
        self.register_buffer("face", face, persistent=False)
        self.kind = nn.Embedding(len(xec.FACES), width // 2)
        size = 3 * BANDS + width // 2
        self.query = nn.Linear(size, width)
        self.seen = nn.Linear(options.scaling.num_channels, width)
        self.there = nn.Linear(size, width, bias=False)
        self.around = nn.Linear(2 * NUM_NEIGHBOURS, width)
        self.tokens = nn.Linear(options.dim, width)
        heads = AttentionOptions(num_heads=4)
        self.local, self.across = (Attention(width, heads) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, num_outputs)
        )

    def forward(self, encoded: Encoded, faces: Faces, visible: Tensor, wanted: Tensor) -> Tensor:
        """Fill in the sensors that are wanted, (B, S, O); the others are zero."""
        gathering = gather_objects(wanted)
        identity = torch.cat([self.place, self.kind(self.face)], -1)  # (S, size)
        sensor = torch.arange(wanted.shape[1], device=wanted.device).expand_as(wanted)
        sensor = gathering.move(sensor)  # (B, M)
        x = self.query(identity)[sensor]  # (B, M, width)
        seen = self.seen(encoded.channels) + self.there(identity)  # (B, S, width)
        neighbour = self.neighbour[sensor]  # (B, M, K)
        events = torch.arange(seen.shape[0], device=seen.device).view(-1, 1, 1)
        there = visible[events, neighbour]  # (B, M, K)
        light = encoded.channels[..., 0][events, neighbour]  # (B, M, K)
        mean = masked_mean(light.flatten(0, 1).unsqueeze(-1), there.flatten(0, 1))
        mean = mean.view(*sensor.shape, 1)
        around = torch.where(there, light - mean, 0.0)
        x = x + self.around(torch.cat([around, there.to(light.dtype)], -1))
        x = x + self._ask_neighbours(self.norms[0](x), seen[events, neighbour], there)
        plan = make_plan(
            Full(), torch.ones_like(encoded.tokens[..., 0], dtype=torch.bool), gathering.valid
        )
        tokens = self.tokens(encoded.tokens)
        x = x + self.across(self.norms[1](x), plan, context=tokens)[0]
        filled = self.mlp(self.norms[2](x))  # (B, M, O)
        filled = torch.cat([filled[..., :1] + mean, filled[..., 1:]], -1)
        filled = torch.where(gathering.valid.unsqueeze(-1), filled, 0.0)
        empty = filled.new_zeros(*wanted.shape, filled.shape[-1])
        return empty.scatter_add(1, sensor.unsqueeze(-1).expand_as(filled), filled)

    def _ask_neighbours(self, x: Tensor, seen: Tensor, there: Tensor) -> Tensor:
        """What sensors (B, M, width) learn from visible neighbours (B, M, K, width)."""
        there = there.flatten(0, 1).unsqueeze(1)  # (B M, 1, K)
        everything = torch.ones_like(there)
        plan = make_plan(Full(), everything[:, 0], everything[..., 0]).restrict(there)
        query = x.flatten(0, 1).unsqueeze(1)  # (B M, 1, width)
        asked, _ = self.local(query, plan, context=seen.flatten(0, 1))
        return asked.view_as(x)


@cache
def nearest_sensors(number: int) -> Tensor:
    """The nearest sensors of each on its face, (S, number).

    Those of other faces have other sizes. Those at one distance come in the order of their angle
    around the sensor, so that a place in the list means the same place in space for all sensors
    inside a face.
    """
    sensors = xec.sensors()
    position, normal = (torch.from_numpy(np.array(x)) for x in sensors[:2])
    face = torch.from_numpy(np.array(sensors.face))
    apart = torch.cdist(position, position)
    apart = apart.masked_fill(face.unsqueeze(1) != face, torch.inf)
    reach = apart.topk(number + 1, largest=False).values[:, -1:]  # (S, 1)
    candidates = 2 * number  # more may be at the last distance
    nearest = apart.fill_diagonal_(torch.inf).topk(candidates, largest=False).indices
    # One axis along z where the face allows it, else around z.
    along = torch.tensor([0.0, 0.0, 1.0], dtype=position.dtype)
    around = torch.stack([-position[:, 1], position[:, 0], torch.zeros_like(position[:, 0])], 1)
    is_side = normal[:, 2:].abs() > 0.9
    first = torch.where(is_side, around, along)
    first = first - (first * normal).sum(1, keepdim=True) * normal
    second = torch.linalg.cross(normal, first)
    offset = position[nearest] - position.unsqueeze(1)  # (S, 2 K, 3)
    x, y = ((offset * axis.unsqueeze(1)).sum(-1) for axis in (first, second))
    distance = apart.gather(1, nearest)
    key = (distance / reach * 1e3).round() + torch.atan2(y, x) / 10
    return nearest.gather(1, key.argsort(1)[:, :number])
