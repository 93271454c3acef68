"""Tables: `mdp()` describes a world, and every step is one of it."""

from typing import Any

import torch
from gymnasium.spaces import Discrete
from torch import Tensor

from ...contracts import TabularMDP
from ..law import Broken, Subject, law
from .applicability import has
from .stepping import LONGEST, Plan, counts, lanes, plans, play, spaces_of, taken


def tables(subject: Subject) -> TabularMDP:
    """What `mdp()` says."""
    if "mdp" not in subject.memory:
        with lanes(subject, counts(subject)[0]) as environment:
            subject.memory["mdp"] = environment.mdp()
    return subject.memory["mdp"]  # type: ignore[no-any-return]


@law("environment", applies=has("mdp"), source="Sutton & Barto 2018, eq. 3.3")
def tables_describe_a_world(subject: Subject) -> None:
    """The rows of `transitions` and `start` are probabilities that sum to 1; rewards are finite; no episode begins at
    its end; a time limit is at least one step; each state shows an element of the Discrete observation space."""
    mdp, (observed, acted) = tables(subject), spaces_of(subject)
    if not (isinstance(observed, Discrete) and isinstance(acted, Discrete) and observed.start == acted.start == 0):
        raise Broken("mdp() is over Discrete spaces that start at 0", expected="Discrete", got=f"{observed}, {acted}")
    states, actions = len(mdp.start), int(acted.n)
    shapes = {"transitions": (states, actions, states), "rewards": (states, actions, states), "terminal": (states,)}
    for name, shape in shapes.items():
        if getattr(mdp, name).shape != shape:
            raise Broken(f"{name}: shape", expected=list(shape), got=list(getattr(mdp, name).shape))
    if mdp.terminal.dtype != torch.bool:
        raise Broken("terminal: dtype", expected=torch.bool, got=mdp.terminal.dtype)
    seen = mdp.seen
    if seen.shape != (states,) or bool(((seen < 0) | (seen >= int(observed.n))).any()):
        raise Broken(
            "a state shows something that is not in the observation space", expected=observed, got=seen.tolist()
        )
    if mdp.observations is None and states != int(observed.n):
        raise Broken(
            "states and observations differ in number, and none says which shows what", expected=observed.n, got=states
        )
    rows = {"start": mdp.start.double()}
    for s in (~mdp.terminal).nonzero().flatten().tolist():
        rows |= {f"transitions[{s}, {a}]": mdp.transitions[s, a].double() for a in range(actions)}
    for name, row in rows.items():
        if not bool(((row >= 0) & (row <= 1 + 1e-9)).all()) or abs(float(row.sum()) - 1) > 1e-6:
            raise Broken(f"{name}: no probabilities", expected="≥ 0, with sum 1", got=row.tolist())
    if bool((mdp.start[mdp.terminal] > 0).any()):
        raise Broken("an episode may begin in a terminal state", expected=0, got=mdp.start.tolist())
    if not bool(torch.isfinite(mdp.rewards[~mdp.terminal]).all()):
        raise Broken("rewards: not finite")
    if mdp.time_limit is not None and not (isinstance(mdp.time_limit, int) and mdp.time_limit >= 1):
        raise Broken("time_limit", expected="None, or a whole number ≥ 1", got=mdp.time_limit)


@law("environment", cases=plans, applies=has("mdp"))
def steps_are_those_of_the_tables(subject: Subject, plan: Plan) -> None:
    """Starts, successors, rewards and ends of every step are possible by `mdp()`: a start of probability above 0,
    P(s′ | s, a) > 0, just r(s, a, s′), and `terminated` where s′ is terminal. (Where states are hidden: by one of those
    in which the lane may be.)"""
    mdp = tables(subject)
    with lanes(subject, plan.lanes) as environment:
        told = play(environment, plan, steps=2 * len(plan.actions))
    for n in range(plan.lanes):
        maybe = _shown(mdp, mdp.start > 0, told.first[n], "begins", told.first[n].tolist(), ())
        for t, step in enumerate(told.steps):
            if step.valid is not None and not bool(step.valid[n]):
                continue
            rows, action = told.rows(n, t), int(told.actions[t][n])
            reward, terminated, after = float(step.rewards[n]), bool(step.terminated[n]), step.successors[n]
            possible = (mdp.transitions[:, action] > 0) & maybe[:, None]  # [S, S]
            _shown(mdp, possible.any(0), after, f"goes in step {t}", after.tolist(), rows)
            possible = possible & (mdp.seen == after)
            paid = torch.isclose(
                mdp.rewards[:, action].double(), torch.tensor(reward, dtype=torch.float64), rtol=1e-5, atol=1e-6
            )
            if not bool((possible & paid).any()):
                allowed = sorted(set(mdp.rewards[:, action][possible].tolist()))
                raise Broken(f"reward of step {t} is not the tables'", expected=allowed, got=reward, case=rows)
            ends = (possible & paid).any(0)
            if not bool(ends[mdp.terminal == terminated].any()):
                raise Broken(
                    f"terminated of step {t} is not the tables'", expected=not terminated, got=terminated, case=rows
                )
            maybe = ends & (mdp.terminal == terminated)
            if terminated or bool(step.truncated[n]):
                begins = step.observations[n]
                maybe = _shown(mdp, mdp.start > 0, begins, f"begins after step {t}", begins.tolist(), rows)
                if subject.says("gives", "groups"):
                    maybe = mdp.seen == begins


def _shown(mdp: TabularMDP, possible: Tensor, seen: Tensor, does: str, got: Any, rows: Any) -> Tensor:
    """Those of the possible states that show this `[S]`; refuse if none does."""
    found = possible & (mdp.seen == seen)
    if not bool(found.any()):
        allowed = sorted(set(mdp.seen[possible].tolist()))
        raise Broken(f"a lane {does} where the tables do not lead", expected=allowed, got=got, case=rows)
    return found


def _playable(subject: Subject) -> str | None:
    if missing := has("mdp")(subject):
        return missing
    limit = tables(subject).time_limit
    return f"its time limit, {limit} steps, is longer than {LONGEST}" if limit and limit > LONGEST else None


@law(
    "environment",
    cases=lambda subject: plans(subject, rows=4),
    applies=_playable,
    examples=10,
    source="Pardo et al. 2018, arXiv:1712.00378",
)
def the_time_limit_is_kept(subject: Subject, plan: Plan) -> None:
    """An episode that the world has not ended is truncated in step L of L, `mdp().time_limit`, in no earlier and no
    later one; the next has L steps again."""
    limit = tables(subject).time_limit
    steps = 64 if limit is None else limit + min(limit, 100) + 1
    with lanes(subject, plan.lanes) as environment:
        generator = torch.Generator().manual_seed(plan.seed)
        environment.reset(generator)
        masks = getattr(environment, "action_masks", None)
        clock = [0] * plan.lanes
        for t in range(steps):
            step = environment.step(taken(environment, plan.row(t), masks), generator)
            masks = step.action_masks
            flags = step.terminated.tolist(), step.truncated.tolist()
            for n, (terminated, truncated) in enumerate(zip(*flags, strict=True)):
                if step.valid is not None and not bool(step.valid[n]):
                    continue
                clock[n] += 1
                late = limit is not None and clock[n] >= limit
                if (truncated and not late) or (late and not (truncated or terminated)):
                    raise Broken(
                        f"step {clock[n]} of an episode{' is' if truncated else ' is not'} truncated",
                        expected=f"a limit of {limit} steps" if limit else "no time limit",
                        got=f"{clock[n]} steps",
                        case=({"lane": n, "step": t, "of its episode": clock[n], "truncated": truncated},),
                    )
                if terminated or truncated:
                    clock[n] = 0
