"""The one encoder of the detector, which reconstruction, inpainting and regression share."""

# B events, S sensors, T tokens, D features, C channels of a sensor

from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hepattn.experiments.xec.backbone import (
    POSITION_SCALE,
    FaceAttention,
    FaceBackbone,
    HexBackbone,
    HexMixer,
    PoolName,
    StemName,
)
from hepattn.experiments.xec.closeup import Closeup
from hepattn.experiments.xec.face_position import FacePosition, PositionName
from hepattn.experiments.xec.faces import HEX_FACES, Faces, Outer
from hepattn.experiments.xec.moments import NUM_MOMENTS, image_moments
from hepattn.experiments.xec.scaling import ScalingOptions, SensorScaling
from hepattn.nn.attention import AttentionOptions
from hepattn.nn.dense import Dense
from hepattn.nn.encoder import Encoder, NormPlacement
from hepattn.nn.next_block import Masking


@dataclass(frozen=True)
class EncoderOptions:
    """What the encoder is made of. The defaults are small, for a CPU.

    Args:
        dim: Features D of a token.
        width: Channels of the first blocks over the images; a 32nd of ``dim`` in the seed.
        hex_width: Features of the nodes at the ends; 96 in the seed.
        num_fusion_layers: Layers of attention among the tokens of the faces.
        num_heads: Heads of these layers.
        norm_placement: Where their norms stand; ``post`` in the seed.
        dropout: Probability of dropping hidden units and attention weights in them.
        drop_path: Probability of dropping a block over an image.
        outer: How the outer face appears, see `Faces`.
        stem: First convolution, see `FaceBackbone`.
        pool: From an image to a token, see `FaceBackbone`.
        attention: What the last block over an image does to its channels: squeeze and excitation,
            ``se``, a convolutional block attention, ``cbam``, attention between all cells,
            ``nonlocal``, or ``none``.
        hex_mixer: How neighbours at the ends mix, see `HexBackbone`.
        pos_embed: How tokens say which face they are: a ``learnable`` vector; sines of the number
            (``sinusoidal``) or of the place of the face in the detector (``geometric``, with
            a vector for faces of photomultipliers); a rotation of queries and keys by that place
            (``rotary``); or scores that fall with the distance between faces (``alibi``).
        masking: How blocks leave out what is not visible: as sparse convolutions, or as the
            seed's code, ``seed``, see `ConvNeXtBlock`.
        closeup: Rows and columns of one more image, with a token of its own: the inner face around
            its brightest sensor, see `Closeup`; 0 for none.
        moments: Whether each token also gets what normalised images lose: the logarithm of the
            light that its face saw, how much of the face was visible, and where the light was.
        scaling: From photons and times to channels.
    """

    dim: int = 64
    width: int = 8
    hex_width: int = 16
    num_fusion_layers: int = 1
    num_heads: int = 4
    norm_placement: NormPlacement = "pre"
    dropout: float = 0.0
    drop_path: float = 0.0
    outer: Outer = "split"
    stem: StemName = "patch"
    pool: PoolName = "attention"
    attention: FaceAttention = "none"
    hex_mixer: HexMixer = "depthwise"
    pos_embed: PositionName = "learnable"
    masking: Masking = "sparse"
    closeup: int = 16
    moments: bool = True
    scaling: ScalingOptions = field(default_factory=ScalingOptions)


class Encoded(NamedTuple):
    """What the encoder makes of events.

    Attributes:
        tokens: One for each image, for each end, and for the closeup if there is one (B, T, D).
        channels: What it saw of each sensor (B, S, C).
        reference: Time from which scaled times count, in ns (B).
    """

    tokens: Tensor
    channels: Tensor
    reference: Tensor


class XecEncoder(nn.Module):
    """Images of the faces to tokens, which attend to each other.

    What is not visible, such as a dead or a masked sensor, has no influence.

    Args:
        options: What it is made of.
    """

    def __init__(self, options: EncoderOptions = EncoderOptions()) -> None:
        super().__init__()
        self.options = options
        self.scaling = SensorScaling(options.scaling)
        self.faces = Faces(options.outer)
        num_channels = options.scaling.num_channels
        self.image = FaceBackbone(
            num_channels,
            options.width,
            options.dim,
            options.stem,
            options.pool,
            options.attention,
            options.drop_path,
            options.masking,
        )
        self.closeup = None
        if options.closeup:
            self.closeup = Closeup(num_channels, options.closeup, options.dim)
        self.hexagon = HexBackbone(
            num_channels,
            options.hex_width,
            options.dim,
            options.hex_mixer,
            options.drop_path,
            options.masking,
        )
        self.moments = nn.Linear(NUM_MOMENTS, options.dim) if options.moments else None
        for name in self.faces.images:
            self.register_buffer(f"place_{name}", self.faces.positions(name), persistent=False)
        for name, place in zip(HEX_FACES, self.faces.end_positions(), strict=True):
            self.register_buffer(f"place_{name}", place, persistent=False)
        names = (*self.faces.images, *HEX_FACES, *(["closeup"] if options.closeup else []))
        self.position = FacePosition(options.pos_embed, options.dim, options.num_heads, names)
        self.fusion = Encoder(
            options.dim,
            options.num_fusion_layers,
            AttentionOptions(num_heads=options.num_heads, dropout=options.dropout),
            partial(Dense, hidden=4 * options.dim, activation="gelu", dropout=options.dropout),
            norm_placement=options.norm_placement,
            rotary=self.position.rotary,
        )

    @property
    def num_tokens(self) -> int:
        """Number T of tokens."""
        return self.faces.num_tokens + (self.closeup is not None)

    def forward(self, photons: Tensor, time: Tensor, valid: Tensor, time_valid: Tensor) -> Encoded:
        """Encode events.

        Args:
            photons: Photons of each sensor (B, S), anything where they are not known.
            time: Times in ns (B, S), anything where they are not known.
            valid: Where photons are known (B, S); other sensors are not visible.
            time_valid: Where times are known (B, S).
        """
        time_valid = time_valid & valid
        reference = self.scaling.reference(photons, time, time_valid)
        given = (time, valid, time_valid)
        tokens = self._images(photons, *given, reference)
        channels = self.scaling(photons, *given, reference)  # (B, S, C)
        nodes, visible = self.faces.nodes(channels), self.faces.nodes(valid)
        ends = self.hexagon(nodes.flatten(0, 1), _or_none(visible.flatten(0, 1)))  # (B 2, D)
        tokens += ends.unflatten(0, (-1, 2)).unbind(1)
        close = []
        if self.closeup is not None:
            token, moments = self._look_closely(photons, valid, channels)
            tokens, close = [*tokens, token], [moments]
        tokens = torch.stack(tokens, 1)  # (B, T, D)
        if self.moments is not None:
            moments = [*self._moments(photons, valid), *close]
            tokens = tokens + self.moments(torch.stack(moments, 1))
        tokens, bias, positions = self.position(tokens)
        everywhere = torch.ones_like(tokens[..., 0], dtype=torch.bool)
        tokens = self.fusion(tokens, everywhere, bias=bias, positions=positions)
        return Encoded(tokens, channels, reference)

    def _images(
        self, photons: Tensor, time: Tensor, valid: Tensor, time_valid: Tensor, reference: Tensor
    ) -> list[Tensor]:
        """A token for each image; images of one size go through the blocks together."""
        cells, visible = {}, {}
        for name in self.faces.images:
            others = [self.faces.image(x, name) for x in (time, valid, time_valid)]
            light = self.faces.photons(photons, name)
            cells[name] = self.scaling(light, *others, reference)
            visible[name] = others[1]
        tokens: dict[str, Tensor] = {}
        for name in self.faces.images:
            if name in tokens:
                continue
            alike = [n for n in cells if cells[n].shape[1:3] == cells[name].shape[1:3]]
            x, seen = (torch.cat([part[n] for n in alike]) for part in (cells, visible))
            place = torch.stack([self.get_buffer(f"place_{n}") for n in alike])  # (G, H, W, 3)
            made = self.image(x, _or_none(seen), place).unflatten(0, (len(alike), -1)).unbind()
            tokens |= dict(zip(alike, made, strict=True))
        return [tokens[name] for name in self.faces.images]

    def _look_closely(
        self, photons: Tensor, valid: Tensor, channels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Token (B, D) and moments (B, NUM_MOMENTS) of the closeup."""
        sensor, there = self.faces.closeup(photons, valid, self.options.closeup)
        events = torch.arange(sensor.shape[0], device=sensor.device).view(-1, 1, 1)
        seen = (there & valid[events, sensor]).flatten(1)  # (B, H W)
        light = torch.where(seen, photons[events, sensor].flatten(1), 0.0).clamp(min=0)
        token = self.closeup(light, seen, channels[events, sensor].flatten(1, 2))
        place = self.faces.place[sensor.flatten(1)] / POSITION_SCALE  # (B, H W, 3)
        return token, image_moments(light, seen, place)

    def _moments(self, photons: Tensor, valid: Tensor) -> list[Tensor]:
        """What each image says as a whole, see `image_moments`."""
        shown = torch.where(valid, photons, 0.0).clamp(min=0)
        parts = []
        for name in (*self.faces.images, *HEX_FACES):
            place = self.get_buffer(f"place_{name}").flatten(0, -2) / POSITION_SCALE
            if name in HEX_FACES:
                end = HEX_FACES.index(name)
                light, seen = (self.faces.nodes(x)[:, end] for x in (shown, valid))
            else:
                light = self.faces.photons(shown, name).flatten(1)
                seen = self.faces.image(valid, name).flatten(1)
            parts.append(image_moments(light, seen, place))
        return parts


def _or_none(visible: Tensor) -> Tensor | None:
    """None where everything is visible, which spares the masking; not asked of a GPU."""
    asks = visible.device.type == "cpu" and not torch.compiler.is_compiling()
    return None if asks and bool(visible.all()) else visible
