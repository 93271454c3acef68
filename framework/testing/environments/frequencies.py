"""Laws of frequencies: steps are as frequent as the tables say."""

import torch
from torch import Tensor

from ..law import Broken, Subject, law
from .applicability import has_members
from .randomness import ALARM
from .stepping import MAX_STEPS, first_of_each_group, make_environment, many_lanes
from .tables import tables

NUM_LANES = 64  # lanes whose steps are counted


def _has_visible_chance(subject: Subject) -> str | None:
    missing = has_members("mdp")(subject)
    if missing:
        return missing
    mdp = tables(subject)
    if mdp.observations is not None:
        return "its states are not observed, so that they cannot be counted"
    probabilities = torch.cat([mdp.transitions[~mdp.terminal].flatten(0, 1), mdp.start.unsqueeze(0)])
    return None if bool(((probabilities > 0).sum(1) > 1).any()) else "it is deterministic"


@law("environment", applies=_has_visible_chance, source="Pearson 1900, doi:10.1080/14786440009463897")
def steps_are_as_frequent_as_the_tables_say(subject: Subject) -> None:
    """With random actions, the successors of each state and action have the frequencies P(s′ | s, a), and first states
    those of `start` (a χ² test for each row, with a total false alarm rate of one in a million)."""
    mdp = tables(subject)
    states, actions = mdp.transitions.shape[:2]
    count = many_lanes(subject, NUM_LANES)
    rows = min(MAX_STEPS, 50 + 100 * states * actions // count)
    action_generator, generator = torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)
    starts, triples = [], []
    with make_environment(subject, count) as environment:
        groups = getattr(environment, "groups", None)
        one_each = first_of_each_group(environment, count)
        for t in range(rows):
            if t % 50 == 0:
                before, masks = environment.reset(generator).clone(), getattr(environment, "action_masks", None)
                starts.append(before[one_each])
            allowed = torch.ones(count, actions) if masks is None else masks.float()
            actions_taken = torch.multinomial(allowed, 1, generator=action_generator).squeeze(1)
            step = environment.step(actions_taken, generator)
            masks = step.action_masks
            real = torch.ones(count, dtype=torch.bool) if step.valid is None else step.valid
            triples.append(((before * actions + actions_taken) * states + step.successors)[real])
            before = step.observations.clone()
            if groups is None and step.valid is None:
                starts.append(before[step.terminated | step.truncated])
    transition_counts = torch.bincount(torch.cat(triples), minlength=states * actions * states).reshape(-1, states)
    tested = [("first states", torch.bincount(torch.cat(starts), minlength=states), mdp.start.double())]
    for pair in range(states * actions):
        s, a = divmod(pair, actions)
        if not bool(mdp.terminal[s]):
            tested.append(
                (f"successors of state {s}, action {a}", transition_counts[pair], mdp.transitions[s, a].double())
            )
    for name, counts, probabilities in tested:
        p_value = chi_square(counts.double(), probabilities)
        if p_value * len(tested) < ALARM:
            raise Broken(
                f"{name}: not as frequent as the tables say (p-value {p_value:.1g})",
                expected=(probabilities * counts.sum()).round(decimals=1).tolist(),
                got=counts.tolist(),
                case=tuple(
                    {"state": s, "probability": p, "expected": p * int(counts.sum()), "counted": int(k)}
                    for s, (p, k) in enumerate(zip(probabilities.tolist(), counts.tolist(), strict=True))
                    if p or k
                ),
            )


def chi_square(counts: Tensor, probabilities: Tensor) -> float:
    """The p-value of counts `[S]` in a χ² test with these probabilities; cells with few expected counts are pooled."""
    if bool((counts[probabilities == 0] > 0).any()):
        return 0.0
    expected = probabilities * counts.sum()
    large = expected >= 5
    cells = [(float(k), float(e)) for k, e in zip(counts[large], expected[large], strict=True)]
    rest = float(counts[~large].sum()), float(expected[~large].sum())
    if rest[1] >= 5:
        cells.append(rest)
    elif cells and rest[1] > 0:
        cells[-1] = cells[-1][0] + rest[0], cells[-1][1] + rest[1]
    if len(cells) < 2:
        return 1.0
    statistic = sum((k - e) ** 2 / e for k, e in cells)
    half = torch.tensor([(len(cells) - 1) / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))
