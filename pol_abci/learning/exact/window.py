"""How the window of a convolution or a pooling moves over an image, axis by axis."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

Pair = tuple[int, int]
"""Of the vertical and of the horizontal axis."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a window: which taps ever see data, and the padding that they need.

    A window that never sees data, or whose live taps are not in one piece, is a `ValueError`.
    """

    size: int
    kernel: int
    stride: int
    padding: int
    output: int = field(init=False)
    taps: int = field(init=False)
    padded: int = field(init=False)
    """Size with the padding that live taps reach."""
    before: int = field(init=False)
    """Of that padding, what comes before the data."""
    start: int = field(init=False)
    """Position in the padded axis that the first live tap of output 0 sees."""

    def __post_init__(self) -> None:
        output = (self.size + 2 * self.padding - self.kernel) // self.stride + 1
        live = [
            tap
            for tap in range(self.kernel)
            if any(0 <= o * self.stride - self.padding + tap < self.size for o in range(output))
        ]
        if not live or live[-1] - live[0] + 1 != len(live):
            raise ValueError(
                f"a kernel of {self.kernel} at stride {self.stride}, padding {self.padding} over "
                f"{self.size} inputs: its live taps are not in one piece"
            )
        offset = live[0] - self.padding
        before = max(0, -offset)
        after = max(0, (output - 1) * self.stride + offset + len(live) - self.size)
        for name, value in (
            ("output", output),
            ("taps", len(live)),
            ("padded", before + self.size + after),
            ("before", before),
            ("start", offset + before),
        ):
            object.__setattr__(self, name, value)

    @property
    def inside(self) -> slice:
        """Where the data lies in the padded axis."""
        return slice(self.before, self.before + self.size)

    def seen_by(self, tap: int) -> slice:
        """Positions of the padded axis that a live tap sees, one an output."""
        first = self.start + tap
        return slice(first, first + (self.output - 1) * self.stride + 1, self.stride)

    def meet(self, tap: int) -> tuple[slice, slice]:
        """Of the data, what a live tap sees; and of the outputs, those that see it there."""
        shift = self.start - self.before + tap
        first = max(0, -(shift // self.stride))
        last = min(self.output - 1, (self.size - 1 - shift) // self.stride)
        inputs = slice(first * self.stride + shift, last * self.stride + shift + 1, self.stride)
        return inputs, slice(first, last + 1)


@dataclass(frozen=True, slots=True)
class Window:
    """A window over images: its vertical and its horizontal axis."""

    rows: Axis
    columns: Axis

    @staticmethod
    @cache  # a layer's window is asked for with every batch and every tile
    def over(shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair) -> Window:
        """The window of a layer whose inputs are images of this shape (H, W, …)."""
        return Window(*map(Axis, shape[:2], kernel, stride, padding))

    @property
    def taps(self) -> int:
        """Live taps."""
        return self.rows.taps * self.columns.taps

    @property
    def output_shape(self) -> Pair:
        """(H', W')."""
        return self.rows.output, self.columns.output

    @property
    def pixels(self) -> int:
        """H' * W'."""
        return self.rows.output * self.columns.output
