"""Laws of the ends of episodes: the steps before, at and after an end."""

import torch
from attrs import evolve
from torch import Tensor

from ..law import Broken, Subject, law
from .applicability import is_deterministic
from .stepping import (
    ActionPlan,
    Recording,
    allowed_actions,
    clone_step,
    equal,
    lane_counts,
    make_environment,
    plans,
    run_plan,
)


@law("environment", cases=plans)
def observations_differ_from_successors_only_at_ends(subject: Subject, plan: ActionPlan) -> None:
    """Unless an episode ended, the next observation is the successor."""
    with make_environment(subject, plan.lanes) as environment:
        recording = run_plan(environment, plan, steps=3 * len(plan.actions))
    for t, step in enumerate(recording.steps):
        continuing = ~(step.terminated | step.truncated)
        continuing = continuing if step.valid is None else continuing & step.valid
        for n in continuing.nonzero().flatten().tolist():
            seen, after = step.observations[n], step.successors[n]
            if not equal(seen, after):
                raise Broken(
                    f"no episode of lane {n} ended in step {t}, but its observation is not its successor",
                    expected=after.tolist(),
                    got=seen.tolist(),
                    case=recording.rows(n, t),
                )


@law("environment", cases=plans)
def invalid_rows_only_follow_ends(subject: Subject, plan: ActionPlan) -> None:
    """`valid` is False only in the row after the end of an episode, and such a row ends no episode itself. If it is
    False in one such row, then in all of them: otherwise a step would be lost, or a reset would count as a step.
    """
    with make_environment(subject, plan.lanes) as environment:
        recording = run_plan(environment, plan, steps=4 * len(plan.actions))
    after_ends = []
    for t, step in enumerate(recording.steps):
        if step.valid is None:
            continue
        for n, real in enumerate(step.valid.tolist()):
            follows = t > 0 and bool(recording.ended(t - 1)[n])
            if not real and not follows:
                raise Broken(
                    f"step {t} of lane {n} is not valid, but no episode ended before it", case=recording.rows(n, t)
                )
            if not real and bool(step.terminated[n] | step.truncated[n]):
                raise Broken(f"step {t} of lane {n} is not valid, but ends an episode", case=recording.rows(n, t))
            if follows:
                after_ends.append((real, t, n))
    for real, t, n in after_ends:
        if real != after_ends[0][0]:
            raise Broken(
                f"step {t} of lane {n} follows an end, but its `valid` is not that of other such steps",
                case=recording.rows(n, t),
            )


@law("environment", cases=lambda subject: plans(subject, rows=4), applies=is_deterministic, examples=25)
def every_episode_is_like_the_first(subject: Subject, plan: ActionPlan) -> None:
    """In a deterministic environment the same actions give the same episode, whether it starts with a reset or after
    the end of another: its step count starts at 0 again. (Compared while nothing is drawn from the generator.)
    """
    count = lane_counts(subject)[0]
    plan = evolve(plan, lanes=count, actions=tuple((row[0],) * count for row in plan.actions))
    with make_environment(subject, count) as environment:
        generator = torch.Generator().manual_seed(plan.seed)
        initial_state = generator.get_state()
        first, masks = environment.reset(generator).clone(), getattr(environment, "action_masks", None)
        recording, episode_step = Recording(first, [], [], []), 0
        episodes: list[list[tuple[Tensor, ...]]] = [[]]
        for t in range(256):
            actions = allowed_actions(environment, plan.row(episode_step), masks)
            step = clone_step(environment.step(actions, generator))
            recording.actions.append(actions)
            recording.steps.append(step)
            masks = step.action_masks
            if step.valid is not None and not bool(step.valid[0]):
                continue
            episode_step += 1
            episodes[-1].append((step.successors[0], step.rewards[0], step.terminated[0], step.truncated[0]))
            if len(episodes) > 1 and not equal(episodes[0][episode_step - 1 : episode_step], episodes[-1][-1:]):
                if not equal(initial_state, generator.get_state()):
                    return  # it is stochastic after all
                raise Broken(
                    f"step {episode_step - 1} of episode {len(episodes) - 1} differs from that of the first episode",
                    expected=[value.tolist() for value in episodes[0][episode_step - 1]],
                    got=[value.tolist() for value in episodes[-1][-1]],
                    case=recording.rows(0, t),
                )
            if recording.ended(t)[0]:
                if len(episodes) == 3:
                    return
                episodes.append([])
                episode_step = 0
