"""The six faces of the detector as images and hexagonal arrays, and back to sensors."""

# B events, S sensors, H rows, W columns, N nodes of a hexagonal face, C channels

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from hepattn.physics import xec

Outer = Literal["split", "coarse", "finegrid"]
HEX_FACES = ("top", "bottom")
IMAGES: dict[Outer, tuple[str, ...]] = {
    "split": ("inner", "us", "ds", "coarse", "centre"),
    "coarse": ("inner", "us", "ds", "coarse"),
    "finegrid": ("inner", "us", "ds", "fine"),
}


class Faces(nn.Module):
    """Cut what the sensors saw into one image for each curved face and one array for each end.

    Rows of an image are steps in azimuth, columns steps along the axis (in depth on the sides).

    Args:
        outer: How the outer face appears, whose sensors stand closer in its centre: ``split`` into
            a coarse image and one of the centre, which show all sensors (twelve of them twice);
            the ``coarse`` image alone, without the 18 sensors that the centre adds; or a
            ``finegrid`` over which the light of each sensor is spread.

    Attributes:
        images: Names of the images, in the order of their tokens; those of the ends follow.
        covered: Whether a sensor is in any of them (S).
        place: Where the sensors are, in cm (S, 3).
    """

    covered: Tensor
    slot: Tensor
    place: Tensor
    hexagons: Tensor
    share: Tensor
    fine_sensor: Tensor

    def __init__(self, outer: Outer = "split") -> None:
        super().__init__()
        self.images = IMAGES[outer]
        indices = {name: xec.grid(name) for name in self.images if name != "fine"}
        if outer == "finegrid":
            fine = xec.fine_grid()
            indices["fine"] = fine.sensor
            self._register("share", fine.share.astype(np.float32))
            shown, place = np.unique(fine.sensor, return_inverse=True)
            self.num_fine = len(shown)
            self._register("fine_sensor", place.ravel())
        for name, index in indices.items():
            self._register(f"index_{name}", index)
        self._register("hexagons", np.stack([xec.hex_face(name) for name in HEX_FACES]))
        # Where a sensor's own cell is among all cells; a later image has the last word.
        slot = np.full(xec.NUM_SENSORS, -1)
        first = 0
        for name in (*self.images, *HEX_FACES):
            ids = xec.hex_face(name) if name in HEX_FACES else indices[name]
            ids = np.unique(ids) if name == "fine" else ids.ravel()
            slot[ids] = first + np.arange(len(ids))
            first += len(ids)
        self._register("slot", slot)
        self._register("place", np.array(xec.sensors().position, np.float32))
        self._register("covered", slot >= 0)

    def _register(self, name: str, values: np.ndarray) -> None:
        self.register_buffer(name, torch.from_numpy(np.array(values)), persistent=False)

    @property
    def num_tokens(self) -> int:
        """Number of images and ends."""
        return len(self.images) + len(HEX_FACES)

    def index(self, name: str) -> Tensor:
        """Sensor of each cell of an image (H, W)."""
        return self.get_buffer(f"index_{name}")

    def image(self, values: Tensor, name: str) -> Tensor:
        """Arrange what sensors have (B, S, ...) as an image (B, H, W, ...)."""
        return values[:, self.index(name)]

    def photons(self, photons: Tensor, name: str) -> Tensor:
        """Arrange numbers of photons (B, S) as an image (B, H, W), whose cells share a sensor's."""
        image = self.image(photons, name)
        return image * self.share if name == "fine" else image

    def nodes(self, values: Tensor) -> Tensor:
        """Arrange what sensors have (B, S, ...) as the two ends (B, 2, N, ...)."""
        return values[:, self.hexagons]

    def positions(self, name: str) -> Tensor:
        """Where the sensors of an image's cells are, in cm (H, W, 3)."""
        return self.place[self.index(name)]

    def end_positions(self) -> Tensor:
        """Where the sensors of the two ends are, in cm (2, N, 3)."""
        return self.place[self.hexagons]

    def closeup(self, photons: Tensor, valid: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Sensors of the inner face around its brightest one that is known.

        Args:
            photons: Photons (B, S).
            valid: Where they are known (B, S).
            size: Rows and columns.

        Returns:
            Sensor of each cell (B, size, size), and whether there is one: beyond the edge of the
            face there is none. The brightest sensor is in row and column ``size // 2``.
        """
        grid = self.index("inner")  # (H, W)
        light = torch.where(valid, photons, -torch.inf)[:, grid.flatten()]
        brightest = light.argmax(1)  # (B)
        step = torch.arange(size, device=photons.device) - size // 2
        row = brightest.div(grid.shape[1], rounding_mode="floor").unsqueeze(1) + step  # (B, size)
        column = brightest.remainder(grid.shape[1]).unsqueeze(1) + step
        there = ((row >= 0) & (row < grid.shape[0])).unsqueeze(2)
        there = there & ((column >= 0) & (column < grid.shape[1])).unsqueeze(1)
        row = row.clamp(0, grid.shape[0] - 1).unsqueeze(2)
        column = column.clamp(0, grid.shape[1] - 1).unsqueeze(1)
        return grid[row, column], there

    def to_sensors(self, images: list[Tensor], nodes: Tensor) -> Tensor:
        """Read off what each sensor has, 0 for those that no image shows.

        Args:
            images: One for each of ``images`` (B, H, W, C).
            nodes: The two ends (B, 2, N, C).

        Returns:
            (B, S, C)
        """
        cells = [self._cells(x, name) for x, name in zip(images, self.images, strict=True)]
        cells = torch.cat([*cells, nodes.flatten(1, 2)], 1)  # (B, cells, C)
        sensors = cells[:, self.slot.clamp(min=0)]  # (B, S, C)
        return torch.where(self.covered.unsqueeze(-1), sensors, 0.0)

    def _cells(self, image: Tensor, name: str) -> Tensor:
        """One row a sensor of the image, in the order of ``slot`` (B, sensors, C)."""
        cells = image.flatten(1, 2)  # (B, H W, C)
        if name != "fine":
            return cells
        cells = cells * self.share.view(1, -1, 1)
        total = cells.new_zeros(cells.shape[0], self.num_fine, cells.shape[-1])
        return total.index_add(1, self.fine_sensor, cells)  # the mean over a sensor's cells
