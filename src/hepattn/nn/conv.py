"""Convolutions over the visible cells of an image, channels last."""

# B events, H rows, W columns, C channels

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from hepattn.nn.next_block import Masking, NeXtBlock, hide
from hepattn.ops.depthwise import depthwise_conv


class DepthwiseConv(nn.Module):
    """Mix the cells around each cell, every channel for itself; the image keeps its size.

    Args:
        dim: Number of channels C.
        kernel_size: Width of the square of cells that is seen, odd.

    Raises:
        ValueError: If the width is even or not positive.
    """

    def __init__(self, dim: int, kernel_size: int = 7) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={kernel_size} must be odd and positive")
        self.conv = nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)

    def forward(self, x: Tensor, visible: Tensor | None = None) -> Tensor:
        """Convolve (B, H, W, C); masked cells must be zero already, as blocks make them."""
        return depthwise_conv(x, self.conv.weight, self.conv.bias)


class ConvNeXtBlock(NeXtBlock):
    """A block of ConvNeXt V2 on images (B, H, W, C); see `NeXtBlock`.

    Args:
        dim: Number of channels C.
        kernel_size: Width of the depthwise convolution, odd.
        expansion: Hidden units, in multiples of the channels.
        drop_path: Probability of dropping the branch for an event in training.
        attention: Makes, of the number of channels, what looks at the branch before the residual,
            such as `SqueezeExcite`; none by default.
        masking: Where masked cells are taken out, see `NeXtBlock`.
    """

    def __init__(
        self,
        dim: int,
        kernel_size: int = 7,
        expansion: int = 4,
        drop_path: float = 0.0,
        attention: Callable[[int], nn.Module] | None = None,
        masking: Masking = "sparse",
    ) -> None:
        mixer = DepthwiseConv(dim, kernel_size)
        super().__init__(dim, mixer, expansion, drop_path, attention, masking)


class MaskedConv(nn.Module):
    """A convolution that reads visible cells alone and says which cells of the output are visible.

    With ``same`` padding the output has ``ceil(H / stride)`` rows, so that none is dropped: of the
    zeros that are needed, ``(kernel_size - stride) // 2`` stand before the image and the others
    behind it. An image that the stride does not divide gets invisible cells at its far end. With
    stride 1 the visible cells stay the same ones, as in a submanifold convolution; with a larger
    stride a cell is visible if any of the cells that it reads is.

    With a number as padding the size is that of `torch.nn.Conv2d`, which drops what is left at the
    far end, and a cell is visible if any of the cells that it reads is, whatever the stride.

    Args:
        dim_in: Number of input channels.
        dim_out: Number of output channels.
        kernel_size: Width of the square of cells that is read.
        stride: Cells from one square to the next.
        padding: ``same``, or how many zeros stand on every side.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        dim_in: int,
        dim_out: int,
        kernel_size: int,
        stride: int = 1,
        padding: Literal["same"] | int = "same",
    ) -> None:
        super().__init__()
        if not 1 <= stride <= kernel_size:
            raise ValueError(
                f"stride={stride} must be 1 to kernel_size={kernel_size}, or cells go unread"
            )
        if padding != "same" and not (isinstance(padding, int) and 0 <= padding < kernel_size):
            raise ValueError(
                f"padding={padding!r} must be 'same' or 0 to {kernel_size - 1}, below "
                f"kernel_size={kernel_size}"
            )
        self.padding = padding
        self.conv = nn.Conv2d(dim_in, dim_out, kernel_size, stride)

    @property
    def kernel_size(self) -> int:
        """Width of the square of cells that is read."""
        return self.conv.kernel_size[0]

    @property
    def stride(self) -> int:
        """Cells from one square to the next."""
        return self.conv.stride[0]

    def forward(self, x: Tensor, visible: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Convolve.

        Args:
            x: Images (B, H, W, C); anything at masked cells.
            visible: True for visible cells (B, H, W); None if all are.

        Returns:
            The output (B, H', W', C'), zero at masked cells, and its visible cells (B, H', W');
            None if all are.
        """
        pads = self._pads(*x.shape[1:3])
        image = hide(x, visible).permute(0, 3, 1, 2)  # (B, C, H, W), rows of memory as before
        if len(set(pads)) == 1:  # torch pads on the way
            conv = self.conv
            out = F.conv2d(image, conv.weight, conv.bias, conv.stride, pads[0])
        else:
            out = self.conv(F.pad(image, pads))
        out = out.permute(0, 2, 3, 1)  # (B, H', W', C')
        if visible is not None and not (self.padding == "same" and self.stride == 1):
            seen = F.pad(visible.to(x.dtype), pads).unsqueeze(1)  # (B, 1, ...)
            visible = F.max_pool2d(seen, self.kernel_size, self.stride).squeeze(1) > 0
        return hide(out, visible), visible

    def output_size(self, rows: int, columns: int) -> tuple[int, int]:
        """Rows H' and columns W' of the output for an image of that size."""
        left, right, top, bottom = self._pads(rows, columns)
        sizes = (rows + top + bottom, columns + left + right)
        return tuple((size - self.kernel_size) // self.stride + 1 for size in sizes)

    def _pads(self, rows: int, columns: int) -> tuple[int, int, int, int]:
        """Zeros before and behind the columns, then the rows."""
        if self.padding != "same":
            return (self.padding,) * 4
        before = (self.kernel_size - self.stride) // 2
        behind = (
            (-(-size // self.stride) - 1) * self.stride + self.kernel_size - size - before
            for size in (columns, rows)
        )
        right, bottom = behind
        return before, right, before, bottom
