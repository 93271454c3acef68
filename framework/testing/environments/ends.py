"""Ends of episodes: what comes before, in and after the step in which one ends."""

import torch
from attrs import evolve
from torch import Tensor

from ..law import Broken, Subject, law
from .applicability import certain
from .stepping import Plan, Told, copied, counts, lanes, plans, play, same, taken


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


@law("environment", cases=lambda subject: plans(subject, rows=4), applies=certain, examples=25)
def every_episode_is_like_the_first(subject: Subject, plan: Plan) -> None:
    """In a world without chance the same actions make the same episode, whether it begins with a reset or after the end
    of another: its clock starts at 0 again. (As long as nothing is drawn from the generator.)"""
    count = counts(subject)[0]
    plan = evolve(plan, lanes=count, actions=tuple((row[0],) * count for row in plan.actions))
    with lanes(subject, count) as environment:
        generator = torch.Generator().manual_seed(plan.seed)
        undrawn = generator.get_state()
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
                if not same(undrawn, generator.get_state()):
                    return  # it leaves something to chance after all
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
