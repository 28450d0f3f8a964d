"""What each tap of a window sees, against the definition pair by pair."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from pol_abci.learning.exact.window import Axis


@st.composite
def axes(draw: st.DrawFn) -> Axis:
    kernel = draw(st.integers(1, 7))
    size, stride = draw(st.integers(1, 12)), draw(st.integers(1, 4))
    padding = draw(st.integers(0, kernel))
    assume(size + 2 * padding >= kernel)
    try:
        return Axis(size, kernel, stride, padding)
    except ValueError:
        assume(False)
        raise


@given(axes())
def test_each_tap_meets_the_data_and_the_outputs_that_see_it(axis: Axis) -> None:
    first_live = axis.start - axis.before + axis.padding
    for tap in range(axis.taps):
        shift = first_live + tap - axis.padding
        pairs = [
            (output * axis.stride + shift, output)
            for output in range(axis.output)
            if 0 <= output * axis.stride + shift < axis.size
        ]
        inputs, outputs = axis.meet(tap)
        met = zip(range(axis.size)[inputs], range(axis.output)[outputs], strict=True)
        assert list(met) == pairs
        assert pairs, "this tap is live"


@given(axes())
def test_padding_reaches_as_far_as_live_taps_see_and_no_farther(axis: Axis) -> None:
    seen = {place for tap in range(axis.taps) for place in range(axis.padded)[axis.seen_by(tap)]}
    data = set(range(axis.padded)[axis.inside])
    assert len(data) == axis.size
    assert (min(seen | data), max(seen | data)) == (0, axis.padded - 1)
