"""Laws of tables: `mdp()` describes an MDP, and steps follow it."""

from typing import Any

import torch
from gymnasium.spaces import Discrete
from torch import Tensor

from ...contracts import TabularMDP
from ..law import Broken, Subject, law
from .applicability import has_members
from .stepping import MAX_STEPS, ActionPlan, allowed_actions, lane_counts, make_environment, plans, run_plan, spaces_of


def tables(subject: Subject) -> TabularMDP:
    """The tables that `mdp()` returns."""
    if "mdp" not in subject.cache:
        with make_environment(subject, lane_counts(subject)[0]) as environment:
            subject.cache["mdp"] = environment.mdp()
    return subject.cache["mdp"]  # type: ignore[no-any-return]


@law("environment", applies=has_members("mdp"), source="Sutton & Barto 2018, eq. 3.3")
def tables_describe_an_mdp(subject: Subject) -> None:
    """The rows of `transitions` and `start` are probabilities that sum to 1, rewards are finite, no episode starts in a
    terminal state, a time limit is at least one step, and the observation of each state is an element of the Discrete
    observation space."""
    mdp, (observation_space, action_space) = tables(subject), spaces_of(subject)
    if not (
        isinstance(observation_space, Discrete)
        and isinstance(action_space, Discrete)
        and observation_space.start == action_space.start == 0
    ):
        raise Broken(
            "mdp() is over Discrete spaces that start at 0",
            expected="Discrete",
            got=f"{observation_space}, {action_space}",
        )
    states, actions = len(mdp.start), int(action_space.n)
    shapes = {"transitions": (states, actions, states), "rewards": (states, actions, states), "terminal": (states,)}
    for name, shape in shapes.items():
        if getattr(mdp, name).shape != shape:
            raise Broken(f"{name}: shape", expected=list(shape), got=list(getattr(mdp, name).shape))
    if mdp.terminal.dtype != torch.bool:
        raise Broken("terminal: dtype", expected=torch.bool, got=mdp.terminal.dtype)
    observations = mdp.seen
    if observations.shape != (states,) or bool(((observations < 0) | (observations >= int(observation_space.n))).any()):
        raise Broken(
            "the observation of a state is not in the observation space",
            expected=observation_space,
            got=observations.tolist(),
        )
    if mdp.observations is None and states != int(observation_space.n):
        raise Broken(
            "states and observations differ in number, and `observations` is None",
            expected=observation_space.n,
            got=states,
        )
    rows = {"start": mdp.start.double()}
    for s in (~mdp.terminal).nonzero().flatten().tolist():
        rows |= {f"transitions[{s}, {a}]": mdp.transitions[s, a].double() for a in range(actions)}
    for name, row in rows.items():
        if not bool(((row >= 0) & (row <= 1 + 1e-9)).all()) or abs(float(row.sum()) - 1) > 1e-6:
            raise Broken(f"{name}: not probabilities", expected="≥ 0, with sum 1", got=row.tolist())
    if bool((mdp.start[mdp.terminal] > 0).any()):
        raise Broken("an episode may start in a terminal state", expected=0, got=mdp.start.tolist())
    if not bool(torch.isfinite(mdp.rewards[~mdp.terminal]).all()):
        raise Broken("rewards: not finite")
    if mdp.time_limit is not None and not (isinstance(mdp.time_limit, int) and mdp.time_limit >= 1):
        raise Broken("time_limit", expected="None, or a whole number ≥ 1", got=mdp.time_limit)


@law("environment", cases=plans, applies=has_members("mdp"))
def steps_follow_the_tables(subject: Subject, plan: ActionPlan) -> None:
    """Start states, successors, rewards and ends are possible according to `mdp()`: start probability above 0, P(s′ |
    s, a) > 0, reward r(s, a, s′), and `terminated` exactly where s′ is terminal. (If states are not observed: for at
    least one state that the lane may be in.)
    """
    mdp = tables(subject)
    with make_environment(subject, plan.lanes) as environment:
        recording = run_plan(environment, plan, steps=2 * len(plan.actions))
    for n in range(plan.lanes):
        possible_states = _states_showing(
            mdp, mdp.start > 0, recording.first[n], "starts", recording.first[n].tolist(), ()
        )
        for t, step in enumerate(recording.steps):
            if step.valid is not None and not bool(step.valid[n]):
                continue
            rows, action = recording.rows(n, t), int(recording.actions[t][n])
            reward, terminated, successor = float(step.rewards[n]), bool(step.terminated[n]), step.successors[n]
            possible = (mdp.transitions[:, action] > 0) & possible_states[:, None]  # [S, S]
            _states_showing(mdp, possible.any(0), successor, f"goes in step {t}", successor.tolist(), rows)
            possible = possible & (mdp.seen == successor)
            reward_matches = torch.isclose(
                mdp.rewards[:, action].double(), torch.tensor(reward, dtype=torch.float64), rtol=1e-5, atol=1e-6
            )
            if not bool((possible & reward_matches).any()):
                allowed = sorted(set(mdp.rewards[:, action][possible].tolist()))
                raise Broken(
                    f"the reward of step {t} is not that of the tables", expected=allowed, got=reward, case=rows
                )
            ends = (possible & reward_matches).any(0)
            if not bool(ends[mdp.terminal == terminated].any()):
                raise Broken(
                    f"`terminated` of step {t} is not that of the tables",
                    expected=not terminated,
                    got=terminated,
                    case=rows,
                )
            possible_states = ends & (mdp.terminal == terminated)
            if terminated or bool(step.truncated[n]):
                begins = step.observations[n]
                possible_states = _states_showing(
                    mdp, mdp.start > 0, begins, f"starts after step {t}", begins.tolist(), rows
                )
                if subject.declares("gives", "groups"):
                    possible_states = mdp.seen == begins


def _states_showing(mdp: TabularMDP, possible: Tensor, observation: Tensor, action: str, got: Any, rows: Any) -> Tensor:
    """The possible states with this observation `[S]`; raises `Broken` if there are none."""
    states = possible & (mdp.seen == observation)
    if not bool(states.any()):
        allowed = sorted(set(mdp.seen[possible].tolist()))
        raise Broken(f"a lane {action} where the tables do not lead", expected=allowed, got=got, case=rows)
    return states


def _time_limit_too_long(subject: Subject) -> str | None:
    if missing := has_members("mdp")(subject):
        return missing
    limit = tables(subject).time_limit
    return f"its time limit, {limit} steps, is longer than {MAX_STEPS}" if limit and limit > MAX_STEPS else None


@law(
    "environment",
    cases=lambda subject: plans(subject, rows=4),
    applies=_time_limit_too_long,
    examples=10,
    source="Pardo et al. 2018, arXiv:1712.00378",
)
def the_time_limit_is_kept(subject: Subject, plan: ActionPlan) -> None:
    """An episode that does not terminate is truncated in step L, `mdp().time_limit`, neither earlier nor later; the
    next episode has L steps again.
    """
    limit = tables(subject).time_limit
    steps = 64 if limit is None else limit + min(limit, 100) + 1
    with make_environment(subject, plan.lanes) as environment:
        generator = torch.Generator().manual_seed(plan.seed)
        environment.reset(generator)
        masks = getattr(environment, "action_masks", None)
        episode_steps = [0] * plan.lanes
        for t in range(steps):
            step = environment.step(allowed_actions(environment, plan.row(t), masks), generator)
            masks = step.action_masks
            flags = step.terminated.tolist(), step.truncated.tolist()
            for n, (terminated, truncated) in enumerate(zip(*flags, strict=True)):
                if step.valid is not None and not bool(step.valid[n]):
                    continue
                episode_steps[n] += 1
                late = limit is not None and episode_steps[n] >= limit
                if (truncated and not late) or (late and not (truncated or terminated)):
                    raise Broken(
                        f"step {episode_steps[n]} of an episode{' is' if truncated else ' is not'} truncated",
                        expected=f"a limit of {limit} steps" if limit else "no time limit",
                        got=f"{episode_steps[n]} steps",
                        case=({"lane": n, "step": t, "step of the episode": episode_steps[n], "truncated": truncated},),
                    )
                if terminated or truncated:
                    episode_steps[n] = 0
