"""What a rollout must be, whoever made it: `Rollout` and docs/reference/contracts.md, read back."""

import torch


def is_a_legal_rollout(rollout):
    """Asserts that the runner could have collected it."""
    mask, ends = rollout.mask, rollout.terminated | rollout.truncated
    for name in ("log_probs", "rewards", "terminated", "truncated", "times", "episodes"):
        assert getattr(rollout, name).shape == mask.shape, name
    for name in ("rewards", "log_probs", "values", "successor_values", "target_log_probs"):
        column = getattr(rollout, name)
        assert column is None or (column.shape == mask.shape and bool(column.isfinite().all())), name
    for name in ("observations", "actions"):
        assert getattr(rollout, name).shape[:2] == mask.shape, name
    assert rollout.groups is None or rollout.groups.shape == mask.shape[1:]
    assert not bool((ends & ~mask).any()), "a flag in padding"
    began = {}  # number → the row and lane of its first step
    for n in range(mask.shape[1]):
        before = None
        for t in range(len(mask)):
            if not mask[t, n]:
                assert before is None or bool(ends[before, n]), "an episode breaks off in padding"
                continue
            number, time = int(rollout.episodes[t, n]), int(rollout.times[t, n])
            if before is None or bool(ends[before, n]):
                assert number not in began, "an episode has two beginnings"
                assert time == 0 or before is None, "an episode begins late"
                began[number] = (t, n)
            else:
                assert number == int(rollout.episodes[before, n]), "an episode changes its number"
                assert time == int(rollout.times[before, n]) + 1, "an episode skips a step"
            before = t
    assert sorted(began) == list(range(len(began))), "numbers with gaps"
    rows = [began[number][0] for number in sorted(began)]
    assert rows == sorted(rows), "numbers not in the order in which episodes began"
    if rollout.values is not None:
        following = torch.cat([rollout.values[1:], rollout.values[:1]])
        going = mask & ~ends
        going[-1] = False
        assert torch.equal(rollout.successor_values[going], following[going]), "V(s′) is not the next row's V"
        assert not bool(rollout.successor_values[rollout.terminated | ~mask].any()), "V beyond the world's end"
