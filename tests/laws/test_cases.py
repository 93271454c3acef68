"""Cases of laws: elements of their spaces, with few rows, reported as Python code and as tables."""

import pytest
from gymnasium.spaces import Box, MultiDiscrete, Space
from hypothesis import find, given, settings

from framework.testing.counterexamples import as_table, source
from framework.testing.steps import batches
from framework.testing.strategies import action_spaces, elements, mdps, rollouts, spaces


def test_the_source_of_a_case_reproduces_it():
    """Whatever the strategies draw, its source gives an equal case."""

    @given(rollouts(groups=True), batches(), mdps(), spaces(), action_spaces())
    def look(rollout, batch, world, space, actions):
        for case in (rollout, batch, world, space, actions):
            imports = set()
            text = source(case, imports)
            scope = {}
            exec("\n".join([*imports, f"made = {text}"]), scope)
            assert source(scope["made"], set()) == text
            if isinstance(case, Space):
                assert scope["made"] == case

    look()


def test_elements_are_in_their_space():
    @given(spaces().flatmap(lambda space: elements(space, 2).map(lambda drawn: (space, drawn))))
    def look(drawn):
        space, both = drawn
        assert all(
            space.contains(one.numpy() if space.shape or isinstance(space, Box) else one.numpy()[()]) for one in both
        )

    look()


def test_elements_of_multi_discrete_begin_at_its_start():
    """Both ends of each range are drawn, and nothing outside."""
    space, seen = MultiDiscrete([2, 3], start=[5, -1]), set()

    @given(elements(space, 4))
    def look(drawn):
        seen.update(map(tuple, drawn.tolist()))

    look()
    assert {first for first, _ in seen} == {5, 6}
    assert {second for _, second in seen} == {-1, 0, 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "rows"),
    [
        (lambda batch, evaluation: bool((batch.advantages < 0).any()), 1),
        (lambda batch, evaluation: bool((batch.advantages < 0).any() and (batch.advantages > 0).any()), 2),
        (lambda batch, evaluation: int((batch.log_probs < 0).sum()) >= 3, 3),
    ],
)
def test_batches_shrink_to_the_rows_that_matter(wrong, rows):
    """And irrelevant numbers are 0 or None."""
    batch, evaluation = find(batches(max_steps=6), lambda drawn: wrong(*drawn), settings=settings(max_examples=1000))
    assert len(batch.advantages) == rows
    assert evaluation.values is None
    assert bool((batch.returns == 0).all())


def test_tables_are_aligned_and_short():
    lines = as_table([{"step": n, "reward": 1 / 3} for n in range(50)])
    assert lines[:2] == ["  step    reward", "     0  0.333333"]
    assert lines[-1] == "  … 10 more"
