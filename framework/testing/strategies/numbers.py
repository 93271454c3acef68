"""Multiples of 1/4 and integers, drawn cheaply: one Hypothesis draw takes a tenth of a millisecond."""

import random

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

SIZES = [0, *(sign * n / 4 for n in range(1, 9) for sign in (1, -1))]  # 17 multiples of 1/4, the simplest first
PLACES, FEW, MANY = 5, 20, 400  # digits per draw; numbers that are drawn before they repeat; longer lists are seeded


def quarters(count: int) -> SearchStrategy[list[float]]:
    """Lists of multiples of 1/4 up to 2 in size."""
    return digits(count, len(SIZES)).map(lambda digits: [SIZES[digit] for digit in digits])


@st.composite
def digits(draw: DrawFn, count: int, base: int) -> list[int]:
    """Integers below `base`, as the digits of a few large integers: one draw takes a tenth of a millisecond.

    Integers of up to 24 bits are drawn uniformly. The number of draws hardly depends on `count`, so that later draws
    stay the same while a case shrinks.
    """
    if count > MANY:
        numbers = random.Random(draw(st.integers(0, 2**31)))
        return [numbers.randrange(base) for _ in range(count)]
    drawn = [draw(st.integers(0, base**PLACES - 1)) for _ in range(1 if count <= PLACES else FEW // PLACES)]
    all_digits = [number // base**place % base for number in drawn for place in range(PLACES)]
    return [all_digits[place % len(all_digits)] for place in range(count)]
