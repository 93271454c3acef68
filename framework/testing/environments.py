"""What every environment must keep to: seeds, lanes, spaces, ends, time limits, saved states, and its tables.

Chance is an environment's own affair: laws compare number by number only what must be the same whatever was drawn, and
ask of the rest how often it happens, so seldom wrongly that no sound environment ever sees it (1 in 10⁶).
"""

import copy
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from attrs import evolve, frozen
from gymnasium.spaces import Discrete, Space
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from torch import Tensor

from ..contracts import Inputs, Step, TabularMDP
from ..entry import Entry
from ..errors import PartError
from .law import Broken, Subject, law
from .strategies import elements

CPU = torch.device("cpu")
COLUMNS = ("observations", "successors", "rewards", "terminated", "truncated", "valid", "action_masks")
ROWS = 12  # of actions in a plan; played over and over, where a law needs more
LONGEST = 2000  # time steps that are played out
ALARM = 1e-6  # how probable it may be that a sound environment is called unsound
BULK = 64  # lanes, where something is counted


# Playing


@frozen
class Plan:
    """What an environment is asked for: so many lanes, reset with this seed, and actions for each step and lane."""

    lanes: int
    seed: int
    actions: tuple[tuple[Any, ...], ...]  # [T][N]

    def row(self, t: int) -> tuple[Any, ...]:
        """The actions of step t; after the last row comes the first."""
        return self.actions[t % len(self.actions)]


@frozen(eq=False)
class Told:
    """What it told: the first observations `[N, *O]`, and of each step what was done and what came."""

    first: Tensor
    actions: list[Tensor]
    steps: list[Step]
    generators: list[Tensor]  # the generator's state after each step

    def ended(self, t: int) -> Tensor:
        """Where an episode ended in step t `[N]`."""
        step = self.steps[t]
        ended = step.terminated | step.truncated
        return ended if step.valid is None else ended & step.valid

    def rows(self, lane: int, last: int, most: int = 8) -> tuple[Mapping[str, Any], ...]:
        """One lane's story up to step `last`, as a table."""
        table = []
        for t in range(max(0, last + 1 - most), last + 1):
            step = self.steps[t]
            before = self.first if t == 0 else self.steps[t - 1].observations
            ends = [name for name in ("terminated", "truncated") if bool(getattr(step, name)[lane])]
            row = {"step": t, "lane": lane, "observation": before[lane].tolist()}
            row |= {"action": self.actions[t][lane].tolist(), "reward": float(step.rewards[lane])}
            row |= {"successor": step.successors[lane].tolist(), "end": ", ".join(ends)}
            if step.valid is not None:
                row["valid"] = bool(step.valid[lane])
            table.append(row)
        return tuple(table)


@contextmanager
def lanes(subject: Subject, count: int) -> Iterator[Any]:
    """A fresh environment of so many lanes, closed afterwards."""
    environment = subject.make(count, CPU)
    try:
        yield environment
    finally:
        if callable(close := getattr(environment, "close", None)):
            close()


def counts(subject: Subject) -> list[int]:
    """The three smallest numbers of lanes that it can be built for: groups come whole."""
    if "counts" not in subject.memory:
        found, refused = [], None
        for count in range(1, 33):
            try:
                with lanes(subject, count):
                    found.append(count)
            except ValueError as error:
                refused = error
            if len(found) == 3:
                break
        if not found and refused is not None:
            raise refused
        subject.memory["counts"] = found
    return list(subject.memory["counts"])


def spaces_of(subject: Subject) -> "tuple[Space[Any], Space[Any]]":
    """Of observations and actions."""
    if "spaces" not in subject.memory:
        with lanes(subject, counts(subject)[0]) as environment:
            subject.memory["spaces"] = environment.observation_space, environment.action_space
    return subject.memory["spaces"]  # type: ignore[no-any-return]


@st.composite
def plans(draw: DrawFn, subject: Subject, several: bool = False, rows: int = ROWS) -> Plan:
    """Actions of the space, step by step; with `several`, for two lanes or more."""
    possible = [count for count in counts(subject) if count > 1 or not several]
    count = draw(st.sampled_from(possible))
    actions = draw(elements(spaces_of(subject)[1], draw(st.integers(1, rows)), count)).tolist()
    return Plan(count, draw(st.integers(0, 99)), tuple(map(tuple, actions)))


def taken(environment: Any, row: Sequence[Any], masks: Tensor | None) -> Tensor:
    """Actions as a tensor; where some are forbidden, each stands for one of those that are allowed."""
    space = environment.action_space
    actions = torch.from_numpy(np.array(row, dtype=space.dtype).reshape(len(row), *(space.shape or ())))
    if isinstance(space, Discrete):
        actions = actions.long()
        if masks is not None:
            for lane, allowed in enumerate(masks):
                options = allowed.nonzero().flatten()
                if len(options):
                    actions[lane] = options[(actions[lane] - int(space.start)) % len(options)] + int(space.start)
    return actions


def play(
    environment: Any,
    plan: Plan,
    steps: int | None = None,
    generator: torch.Generator | None = None,
    before: Told | None = None,
) -> Told:
    """Reset, and step as planned (`steps` times); or go on after what was told `before`, with its next actions."""
    generator = torch.Generator().manual_seed(plan.seed) if generator is None else generator
    if before is None:
        first, masks, begun = environment.reset(generator).clone(), getattr(environment, "action_masks", None), 0
    else:
        last, begun = before.steps[-1], len(before.steps)
        first, masks = last.observations, last.action_masks
    told = Told(first, [], [], [])
    for t in range(begun, begun + (len(plan.actions) if steps is None else steps)):
        actions = taken(environment, plan.row(t), masks)
        step = copied(environment.step(actions.clone(), generator))
        masks = step.action_masks
        told.actions.append(actions)
        told.steps.append(step)
        told.generators.append(generator.get_state())
    return told


def copied(step: Step) -> Step:
    """A step that stays: what is handed out may be overwritten by the next."""
    columns = {name: getattr(step, name) for name in COLUMNS}
    clones: dict[str, Any] = {name: None if column is None else column.clone() for name, column in columns.items()}
    return Step(**clones)


def same(one: Any, other: Any) -> bool:
    """Whether two tensors, numbers, or containers of them hold the same, NaN being NaN."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        if one.shape != other.shape or one.dtype != other.dtype:
            return False
        return bool(((one == other) | (one != one) & (other != other)).all())
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(value, other[name]) for name, value in one.items())
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        return bool(np.array_equal(one, other))
    return type(one) is type(other) and bool(one == other)


def compare(one: Told, other: Told, message: str) -> None:
    """Raise where the second tells something else than the first, at the first step and lane where it does."""
    for n, (first, again) in enumerate(zip(one.first, other.first, strict=True)):
        if not same(first, again):
            raise Broken(
                f"{message}: first observations of lane {n} differ", expected=first.tolist(), got=again.tolist()
            )
    for t, (step, again_step) in enumerate(zip(one.steps, other.steps, strict=True)):
        for name in COLUMNS:
            here, there = getattr(step, name), getattr(again_step, name)
            if not same(here, there):
                n = next(n for n in range(len(here)) if not same(here[n], there[n]))
                raise Broken(
                    f"{message}: {name} of step {t}, lane {n} differ",
                    expected=here[n].tolist(),
                    got=there[n].tolist(),
                    case=one.rows(n, t),
                )


# Chance


@contextmanager
def globally_seeded(seed: int) -> Iterator[None]:
    """The global generators of torch, numpy and Python seeded, and put back afterwards."""
    kept = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.default_generator.manual_seed(seed)  # `torch.manual_seed` formats a stack trace each time
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(kept[0])
        np.random.set_state(kept[1])
        random.setstate(kept[2])


def arbitrary(subject: Subject, count: int, rows: int, seed: int = 0) -> Plan:
    """A long plan of actions from all over the space, the same each time."""
    space = copy.deepcopy(spaces_of(subject)[1])
    space.seed(seed)
    return Plan(
        count, seed, tuple(tuple(np.asarray(space.sample()).tolist() for _ in range(count)) for _ in range(rows))
    )


def leaves_to_chance(subject: Subject) -> bool:
    """Whether other seeds tell another story of the same actions: six seeds, forty steps."""
    if "chance" not in subject.memory:
        count = counts(subject)[0]
        plan = arbitrary(subject, count, 40)
        stories = []
        for seed in range(6):
            with lanes(subject, count) as environment:
                stories.append(play(environment, evolve(plan, seed=seed)))
        columns = [[told.first, *(getattr(step, name) for step in told.steps for name in COLUMNS)] for told in stories]
        subject.memory["chance"] = any(not same(columns[0], other) for other in columns[1:])
    return bool(subject.memory["chance"])


def _certain(subject: Subject) -> str | None:
    return "leaves something to chance" if leaves_to_chance(subject) else None


def _uncertain(subject: Subject) -> str | None:
    return None if leaves_to_chance(subject) else "leaves nothing to chance"


def _several(subject: Subject) -> str | None:
    return None if max(counts(subject)) > 1 else "cannot be built for several lanes"


def _has(*names: str) -> Callable[[Subject], str | None]:
    """Why an environment without these members is not concerned."""

    def reason(subject: Subject) -> str | None:
        with lanes(subject, counts(subject)[0]) as environment:
            missing = [name for name in names if getattr(environment, name, None) is None]
        return f"has no {missing[0]}" if missing else None

    return reason


# What is handed out


@law("environment", cases=plans)
def what_is_seen_is_in_the_space(subject: Subject, plan: Plan) -> None:
    """First observations, observations and successors are elements of `observation_space`, of one shape and dtype;
    rewards [N] are floating point, flags [N] bool; every action of `action_space` is taken."""
    with lanes(subject, plan.lanes) as environment:
        entry = Entry(environment, plan.lanes, (subject.part.label, "policy"))
        told = play(environment, plan, steps=0)
        masks = getattr(environment, "action_masks", None)
        try:
            entry.first(told.first, masks)
            entry.observations("reset: observations", told.first.unsqueeze(0), _where)
        except PartError as error:
            raise Broken(str(error), case=({"first observations": told.first.tolist()},)) from None
        inputs = Inputs(told.first, masks)
    with lanes(subject, plan.lanes) as environment:
        told = play(environment, plan)
    for t, step in enumerate(told.steps):
        try:
            entry.step(step, None, inputs)
            for name in ("observations", "successors"):
                entry.observations(f"step: {name}", getattr(step, name).unsqueeze(0), _where)
        except PartError as error:
            raise Broken(f"{error}, after step {t}", case=told.rows(0, t)) from None
        inputs = Inputs(step.observations, step.action_masks)


def _where(index: Sequence[int]) -> str:
    return f"lane {index[1]}"


@law("environment", cases=plans)
def rewards_are_finite(subject: Subject, plan: Plan) -> None:
    """No reward is NaN or infinite, in rows that are no real steps neither."""
    with lanes(subject, plan.lanes) as environment:
        told = play(environment, plan)
    for t, step in enumerate(told.steps):
        for n, reward in enumerate(step.rewards.tolist()):
            if not math.isfinite(reward):
                raise Broken(
                    f"reward {reward} in step {t}", expected="a finite number", got=reward, case=told.rows(n, t)
                )


# Seeds


@law("environment", cases=plans, source="docs/reference/contracts.md; Henderson et al. 2018, arXiv:1709.06560")
def the_same_seed_tells_the_same(subject: Subject, plan: Plan) -> None:
    """Two environments that are reset with equal generators and take the same actions tell the same, bit for bit,
    whatever the global generators hold: all chance comes from the generator that is handed in."""
    stories = []
    for other in (1, 2):
        with globally_seeded(other), lanes(subject, plan.lanes) as environment:
            stories.append(play(environment, plan))
    compare(stories[0], stories[1], "built twice, with the same seed")


@law("environment", cases=plans)
def reset_forgets_what_was_before(subject: Subject, plan: Plan) -> None:
    """After a reset an environment that was played tells what a new one does: nothing counts on (a clock, a stream)."""
    with lanes(subject, plan.lanes) as environment:
        fresh = play(environment, plan)
        again = play(environment, plan)
    compare(fresh, again, "reset with the same seed after it was played")


@law("environment", cases=plans)
def the_global_generators_are_left_alone(subject: Subject, plan: Plan) -> None:
    """Building, resetting and stepping move none of the global generators of torch, numpy and Python."""
    with globally_seeded(3):
        before = _global_states()
        with lanes(subject, plan.lanes) as environment:
            play(environment, plan)
        after = _global_states()
    for name, state in before.items():
        if not same(state, after[name]):
            raise Broken(f"it moves the global generator of {name}: all chance comes from the one that is handed in")


def _global_states() -> dict[str, Any]:
    _, keys, position, *_ = np.random.get_state()
    return {"torch": torch.get_rng_state(), "numpy": (keys, position), "Python": random.getstate()}


@law("environment", cases=plans)
def actions_are_only_read(subject: Subject, plan: Plan) -> None:
    """Actions are left as they were, and not looked at again after the step: the policy may write the next ones into
    the same tensor."""
    with lanes(subject, plan.lanes) as environment:
        fresh = play(environment, plan)
    with lanes(subject, plan.lanes) as environment:
        generator = torch.Generator().manual_seed(plan.seed)
        first = environment.reset(generator).clone()
        again = Told(first, fresh.actions, [], [])
        buffer = torch.empty_like(fresh.actions[0])
        for t, actions in enumerate(fresh.actions):
            buffer.copy_(actions)
            step = environment.step(buffer, generator)
            if not same(buffer, actions):
                raise Broken(f"step {t} changed the actions that it was handed", expected=actions, got=buffer)
            again.steps.append(copied(step))
            buffer.copy_(fresh.actions[(t + 1) % len(fresh.actions)].flip(0))
    compare(fresh, again, "with actions handed over in one tensor that is written again")


# Lanes


@st.composite
def _disturbed(draw: DrawFn, subject: Subject) -> tuple[Plan, int, Plan]:
    """A plan, one lane, and the same plan with other actions in that lane."""
    plan = draw(plans(subject, several=True))
    lane = draw(st.integers(0, plan.lanes - 1))
    others = draw(elements(spaces_of(subject)[1], len(plan.actions)))
    rows = [
        tuple(other.tolist() if n == lane else action for n, action in enumerate(row))
        for row, other in zip(plan.actions, others, strict=True)
    ]
    return plan, lane, evolve(plan, actions=tuple(rows))


@law("environment", cases=_disturbed, applies=_several)
def lanes_do_not_disturb_each_other(subject: Subject, case: tuple[Plan, int, Plan]) -> None:
    """What one lane does changes nothing in the others. (Compared as long as both have drawn alike: as the lane's
    episodes have ended at the same steps, and the generator stands at the same place.)"""
    plan, lane, other = case
    stories = []
    for one in (plan, other):
        with lanes(subject, one.lanes) as environment:
            stories.append(play(environment, one))
    calm, disturbed = stories
    for t, (step, again) in enumerate(zip(calm.steps, disturbed.steps, strict=True)):
        if not same(calm.generators[t], disturbed.generators[t]):
            return
        alike = same(calm.ended(t)[lane], disturbed.ended(t)[lane])
        for name in COLUMNS:
            here, there = getattr(step, name), getattr(again, name)
            for n in set(range(plan.lanes)) - {lane} if here is not None else ():
                fresh = name in ("observations", "action_masks") and bool(calm.ended(t)[n]) and not alike
                if not fresh and not same(here[n], there[n]):
                    raise Broken(
                        f"{name} of lane {n} in step {t} change with what lane {lane} does",
                        expected=here[n].tolist(),
                        got=there[n].tolist(),
                        case=(*calm.rows(n, t), *disturbed.rows(n, t), *disturbed.rows(lane, t)),
                    )
        if not alike:
            return


@law("environment", cases=lambda subject: plans(subject, several=True), applies=lambda s: _several(s) or _certain(s))
def a_lane_alone_tells_what_it_tells_among_others(subject: Subject, plan: Plan) -> None:
    """In a world without chance a lane tells the same among few others as among many."""
    few = counts(subject)[0]
    narrow = evolve(plan, lanes=few, actions=tuple(row[:few] for row in plan.actions))
    stories = []
    for one in (narrow, plan):
        with lanes(subject, one.lanes) as environment:
            stories.append(play(environment, one))
    alone, among = stories
    among = Told(among.first[:few], among.actions, [_first_lanes(step, few) for step in among.steps], [])
    compare(alone, among, f"the first lanes of {plan.lanes}")


def _first_lanes(step: Step, count: int) -> Step:
    columns = {name: getattr(step, name) for name in COLUMNS}
    some: dict[str, Any] = {name: None if column is None else column[:count] for name, column in columns.items()}
    return Step(**some)


@law(
    "environment",
    applies=lambda subject: _several(subject) or _uncertain(subject),
    source="https://numpy.org/doc/stable/reference/random/parallel.html",
)
def lanes_have_chance_of_their_own(subject: Subject) -> None:
    """Lanes that take the same actions do not all meet with the same chance: no two lanes (of different groups) tell
    the same eight steps after each of 200 resets."""
    count, resets = max(counts(subject)), 200
    rows = arbitrary(subject, 1, 8).actions
    plan = Plan(count, 0, tuple(row * count for row in rows))
    generator = torch.Generator().manual_seed(0)
    with lanes(subject, count) as environment:
        groups = getattr(environment, "groups", None)
        stories = [play(environment, plan, generator=generator) for _ in range(resets)]
    told = [[_written(story, n) for n in range(count)] for story in stories]
    usual = Counter(one[0] for one in told).most_common(1)[0][1] / resets
    for n in range(1, count):
        if groups is not None and groups[n] == groups[0]:
            continue
        if resets * math.log(usual) < math.log(ALARM) and all(one[0] == one[n] for one in told):
            raise Broken(
                f"lanes 0 and {n} meet with the same chance after each of {resets} resets",
                expected="independent lanes",
                got="one stream of random numbers for both",
                case=(*stories[0].rows(0, 7, 3), *stories[0].rows(n, 7, 3)),
            )


def _written(told: Told, n: int) -> bytes:
    """All that lane n told."""
    columns = [told.first, *(column for step in told.steps for column in (step.successors, step.rewards))]
    return b"".join(column[n].numpy().tobytes() for column in columns)


# Ends


@law("environment", cases=plans)
def only_an_end_parts_observations_from_successors(subject: Subject, plan: Plan) -> None:
    """Where no episode ended, what the policy sees next is the true successor."""
    with lanes(subject, plan.lanes) as environment:
        told = play(environment, plan, steps=3 * len(plan.actions))
    for t, step in enumerate(told.steps):
        going = ~(step.terminated | step.truncated)
        going = going if step.valid is None else going & step.valid
        for n in going.nonzero().flatten().tolist():
            seen, after = step.observations[n], step.successors[n]
            if not same(seen, after):
                raise Broken(
                    f"no episode of lane {n} ended in step {t}, and its observation is not its successor",
                    expected=after.tolist(),
                    got=seen.tolist(),
                    case=told.rows(n, t),
                )


def usual_start(subject: Subject) -> float:
    """The share of the most frequent first observation of lane 0 among 64."""
    if "usual start" not in subject.memory:
        count, generator = counts(subject)[0], torch.Generator().manual_seed(1)
        with lanes(subject, count) as environment:
            starts = [environment.reset(generator)[0].numpy().tobytes() for _ in range(64)]
        subject.memory["usual start"] = Counter(starts).most_common(1)[0][1] / len(starts)
    return float(subject.memory["usual start"])


def _starts_anywhere(subject: Subject) -> str | None:
    return None if usual_start(subject) <= 0.9 else "begins (nearly) always in the same state"


@law("environment", applies=_starts_anywhere, source="Pardo et al. 2018, arXiv:1712.00378, section 3")
def successors_are_where_the_episode_ended(subject: Subject) -> None:
    """Where an episode ended, the successor is its last state, from which a truncation is bootstrapped, and not the
    first of the next one. (Asked where starts are random: there the two are not always equal.)"""
    count = max(counts(subject))
    enough = math.log(ALARM) / math.log(usual_start(subject))
    plan, told, ended = arbitrary(subject, count, 200), None, 0
    with lanes(subject, count) as environment:
        generator = torch.Generator().manual_seed(1)
        for _ in range(LONGEST // 200):
            told = play(environment, plan, generator=generator, before=told)
            for t in range(len(told.steps) - 1):
                step, following = told.steps[t], told.steps[t + 1]
                for n in told.ended(t).nonzero().flatten().tolist():
                    if following.valid is not None and not bool(following.valid[n]):
                        continue  # the next row is the one that resets
                    if not same(step.observations[n], step.successors[n]):
                        return
                    ended, last, lane = ended + 1, t, n
            if ended > enough:
                raise Broken(
                    f"each of {ended} episodes ended in just the state in which the next began, and starts are random",
                    expected="the episode's last state",
                    got=told.steps[last].successors[lane].tolist(),
                    case=told.rows(lane, last, 3) if last < len(told.steps) else (),
                )


@law("environment", cases=plans)
def a_row_that_is_no_step_follows_an_end(subject: Subject, plan: Plan) -> None:
    """`valid` is False only in the row after an episode's end, which ends nothing itself; and if in one such row, then
    in all: otherwise a step would be left out, or a reset learnt from."""
    with lanes(subject, plan.lanes) as environment:
        told = play(environment, plan, steps=4 * len(plan.actions))
    after_ends = []
    for t, step in enumerate(told.steps):
        if step.valid is None:
            continue
        for n, real in enumerate(step.valid.tolist()):
            follows = t > 0 and bool(told.ended(t - 1)[n])
            if not real and not follows:
                raise Broken(f"step {t} of lane {n} is no real step, and no episode ended before", case=told.rows(n, t))
            if not real and bool(step.terminated[n] | step.truncated[n]):
                raise Broken(f"step {t} of lane {n} is no real step, and ends an episode", case=told.rows(n, t))
            if follows:
                after_ends.append((real, t, n))
    for real, t, n in after_ends:
        if real != after_ends[0][0]:
            raise Broken(f"step {t} of lane {n} follows an end, and is as valid as no other", case=told.rows(n, t))


@law("environment", cases=lambda subject: plans(subject, rows=4), applies=_certain, examples=25)
def every_episode_is_like_the_first(subject: Subject, plan: Plan) -> None:
    """In a world without chance the same actions make the same episode, whether it begins with a reset or after the end
    of another: its clock starts at 0 again."""
    count = counts(subject)[0]
    plan = evolve(plan, lanes=count, actions=tuple((row[0],) * count for row in plan.actions))
    with lanes(subject, count) as environment:
        generator = torch.Generator().manual_seed(plan.seed)
        first, masks = environment.reset(generator).clone(), getattr(environment, "action_masks", None)
        told, taken_here = Told(first, [], [], []), 0
        episodes: list[list[tuple[Tensor, ...]]] = [[]]
        for t in range(256):
            actions = taken(environment, plan.row(taken_here), masks)
            step = copied(environment.step(actions, generator))
            told.actions.append(actions)
            told.steps.append(step)
            masks = step.action_masks
            if step.valid is not None and not bool(step.valid[0]):
                continue
            taken_here += 1
            episodes[-1].append((step.successors[0], step.rewards[0], step.terminated[0], step.truncated[0]))
            if len(episodes) > 1 and not same(episodes[0][taken_here - 1 : taken_here], episodes[-1][-1:]):
                raise Broken(
                    f"step {taken_here - 1} of episode {len(episodes) - 1} is not that of the first",
                    expected=[value.tolist() for value in episodes[0][taken_here - 1]],
                    got=[value.tolist() for value in episodes[-1][-1]],
                    case=told.rows(0, t),
                )
            if told.ended(t)[0]:
                if len(episodes) == 3:
                    return
                episodes.append([])
                taken_here = 0


# States that are saved


@st.composite
def _interrupted(draw: DrawFn, subject: Subject) -> tuple[Plan, int, int]:
    """A plan, after how many of its steps it is interrupted, and how many the other lanes had taken."""
    plan = draw(plans(subject))
    return plan, draw(st.integers(1, len(plan.actions))), draw(st.integers(0, 3))


@law("environment", cases=_interrupted, applies=_has("state_dict", "load_state_dict"))
def lanes_put_back_go_on_as_if_never_left(subject: Subject, case: tuple[Plan, int, int]) -> None:
    """Another environment that is handed the state of this one, and its generator's, goes on as this one does; what was
    saved does not change under way."""
    plan, interrupted, elsewhere = case
    generator = torch.Generator().manual_seed(plan.seed)
    with lanes(subject, plan.lanes) as environment:
        before = play(environment, plan, steps=interrupted, generator=generator)
        saved = environment.state_dict()
        kept = copy.deepcopy(saved)
        going_on = play(environment, plan, generator=generator, before=before)
    if not same(saved, kept):
        raise Broken("the state that was saved changes as the environment goes on: it must be a copy")
    with lanes(subject, plan.lanes) as environment:
        if elsewhere:
            play(environment, evolve(plan, seed=plan.seed + 1), steps=elsewhere)
        environment.load_state_dict(saved)
        generator.set_state(before.generators[-1])
        again = play(environment, plan, generator=generator, before=before)
    compare(going_on, again, f"put back after {interrupted} steps")


# Groups and masks


@law("environment", cases=plans, applies=lambda s: None if s.says("gives", "groups") else _has("groups")(s))
def groups_share_their_starts(subject: Subject, plan: Plan) -> None:
    """`groups` [N] is int64 and stays; lanes of one group begin in the same state, and keep it from episode to episode
    until the next reset."""
    with lanes(subject, plan.lanes) as environment:
        groups = environment.groups
        if groups is None or groups.dtype != torch.int64 or groups.shape != (plan.lanes,):
            raise Broken("groups: expected int64 [N]", expected=[plan.lanes], got=groups)
        kept = groups.clone()
        told = play(environment, plan, steps=4 * len(plan.actions))
        if not same(environment.groups, kept):
            raise Broken("groups change", expected=kept.tolist(), got=environment.groups.tolist())
    for n in range(plan.lanes):
        leader = int((kept == kept[n]).nonzero()[0])
        if not same(told.first[n], told.first[leader]):
            raise Broken(
                f"lanes {leader} and {n} are of one group and begin in different states",
                expected=told.first[leader].tolist(),
                got=told.first[n].tolist(),
            )
    for t, step in enumerate(told.steps):
        if step.valid is not None:
            return
        for n in told.ended(t).nonzero().flatten().tolist():
            if not same(step.observations[n], told.first[n]):
                raise Broken(
                    f"lane {n} begins its next episode elsewhere, without a reset",
                    expected=told.first[n].tolist(),
                    got=step.observations[n].tolist(),
                    case=told.rows(n, t),
                )


def _masked(subject: Subject) -> str | None:
    with lanes(subject, counts(subject)[0]) as environment:
        environment.reset(torch.Generator().manual_seed(0))
        return None if getattr(environment, "action_masks", None) is not None else "forbids no action"


@law("environment", cases=plans, applies=_masked)
def something_is_always_allowed(subject: Subject, plan: Plan) -> None:
    """With `action_masks`, every observation has its row of them, and each row allows something."""
    with lanes(subject, plan.lanes) as environment:
        environment.reset(torch.Generator().manual_seed(plan.seed))
        first = environment.action_masks.clone()
    with lanes(subject, plan.lanes) as environment:
        told = play(environment, plan)
    for t, masks in enumerate([first, *(step.action_masks for step in told.steps)]):
        if masks is None or masks.dtype != torch.bool or masks.shape != first.shape:
            raise Broken(
                f"action_masks {'of reset' if t == 0 else f'of step {t - 1}'}: expected bool {list(first.shape)}"
            )
        for n in (~masks.any(-1)).nonzero().flatten().tolist():
            raise Broken(f"no action is allowed in lane {n} after {t} steps", case=told.rows(n, t - 1) if t else ())


# Tables


def tables(subject: Subject) -> TabularMDP:
    """What `mdp()` says."""
    if "mdp" not in subject.memory:
        with lanes(subject, counts(subject)[0]) as environment:
            subject.memory["mdp"] = environment.mdp()
    return subject.memory["mdp"]  # type: ignore[no-any-return]


@law("environment", applies=_has("mdp"), source="Sutton & Barto 2018, eq. 3.3")
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


@law("environment", cases=plans, applies=_has("mdp"))
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
                groups = subject.says("gives", "groups")
                maybe = _shown(mdp, mdp.start > 0, begins, f"begins after step {t}", begins.tolist(), rows)
                if groups:
                    maybe = mdp.seen == begins


def _shown(mdp: TabularMDP, possible: Tensor, seen: Tensor, does: str, got: Any, rows: Any) -> Tensor:
    """Those of the possible states that show this `[S]`; refuse if none does."""
    found = possible & (mdp.seen == seen)
    if not bool(found.any()):
        allowed = sorted(set(mdp.seen[possible].tolist()))
        raise Broken(f"a lane {does} where the tables do not lead", expected=allowed, got=got, case=rows)
    return found


def _playable(subject: Subject) -> str | None:
    limit = None if _has("mdp")(subject) else tables(subject).time_limit
    if limit is not None and limit > LONGEST:
        return f"its time limit, {limit} steps, is longer than {LONGEST}"
    return _has("mdp")(subject)


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
        actions = [taken(environment, row, None) for row in plan.actions]
        generator = torch.Generator().manual_seed(plan.seed)
        environment.reset(generator)
        clock = [0] * plan.lanes
        for t in range(steps):
            step = environment.step(actions[t % len(actions)], generator)
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


def _countable(subject: Subject) -> str | None:
    missing = _has("mdp")(subject)
    if missing:
        return missing
    mdp = tables(subject)
    if mdp.observations is not None:
        return "hides its states, so that their frequencies are not seen"
    chances = torch.cat([mdp.transitions[~mdp.terminal].flatten(0, 1), mdp.start.unsqueeze(0)])
    return None if bool(((chances > 0).sum(1) > 1).any()) else "leaves nothing to chance"


@law("environment", applies=_countable, source="Pearson 1900, doi:10.1080/14786440009463897")
def steps_are_as_frequent_as_the_tables_say(subject: Subject) -> None:
    """Of uniformly random actions, the successors of each state and action are as frequent as P(s′ | s, a), and first
    states as `start`: χ² of each row, all together wrongly refused once in a million."""
    mdp = tables(subject)
    states, actions = mdp.transitions.shape[:2]
    count = counts(subject)[0] * (BULK // counts(subject)[0] or 1)
    rows = min(LONGEST, 50 + 100 * states * actions // count)
    chosen, generator = torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)
    starts, triples = [], []
    with lanes(subject, count) as environment:
        groups = getattr(environment, "groups", None)
        one_each = (
            torch.arange(count)
            if groups is None
            else torch.stack([(groups == g).nonzero()[0, 0] for g in groups.unique()])
        )
        for t in range(rows):
            if t % 50 == 0:
                before = environment.reset(generator).clone()
                starts.append(before[one_each])
            taken_now = torch.randint(actions, (count,), generator=chosen)
            step = environment.step(taken_now, generator)
            real = torch.ones(count, dtype=torch.bool) if step.valid is None else step.valid
            triples.append(((before * actions + taken_now) * states + step.successors)[real])
            before = step.observations.clone()
            if groups is None and step.valid is None:
                starts.append(before[step.terminated | step.truncated])
    found = torch.bincount(torch.cat(triples), minlength=states * actions * states).reshape(-1, states)
    tested = [("first states", torch.bincount(torch.cat(starts), minlength=states), mdp.start.double())]
    for pair in range(states * actions):
        s, a = divmod(pair, actions)
        if not bool(mdp.terminal[s]):
            tested.append((f"successors of state {s}, action {a}", found[pair], mdp.transitions[s, a].double()))
    for name, seen, chances in tested:
        improbable = chi_square(seen.double(), chances)
        if improbable * len(tested) < ALARM:
            raise Broken(
                f"{name}: not as frequent as the tables say (probability of this, or worse: {improbable:.1g})",
                expected=(chances * seen.sum()).round(decimals=1).tolist(),
                got=seen.tolist(),
                case=tuple(
                    {"state": s, "probability": p, "expected": p * int(seen.sum()), "seen": int(k)}
                    for s, (p, k) in enumerate(zip(chances.tolist(), seen.tolist(), strict=True))
                    if p or k
                ),
            )


def chi_square(seen: Tensor, chances: Tensor) -> float:
    """The probability of counts `[S]` as far from these chances, or farther; cells of few expected are pooled."""
    if bool((seen[chances == 0] > 0).any()):
        return 0.0
    expected = chances * seen.sum()
    large = expected >= 5
    cells = [(float(k), float(e)) for k, e in zip(seen[large], expected[large], strict=True)]
    rest = float(seen[~large].sum()), float(expected[~large].sum())
    if rest[1] >= 5:
        cells.append(rest)
    elif cells and rest[1] > 0:
        cells[-1] = cells[-1][0] + rest[0], cells[-1][1] + rest[1]
    if len(cells) < 2:
        return 1.0
    statistic = sum((k - e) ** 2 / e for k, e in cells)
    half = torch.tensor([(len(cells) - 1) / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))
