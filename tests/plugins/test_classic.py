"""Gymnasium's own classic control worlds, one lane each, are the oracle of ours; each law kills mutants.

Every law is tried in all three arithmetics: Python's floats and numpy's arrays, as on the CPU, and torch's tensors, as
elsewhere.
"""

import math
import sys

import numpy as np
import pytest
import torch
from classic_cases import CPU, PI, WORLDS, Oracle, generator, near, settings_class, states, step_rows, tensors
from framework_classic import dynamics as shared_dynamics
from framework_classic import lanes as shared
from hypothesis import given
from hypothesis import strategies as st
from mutants import is_killed, mutate


def built(way, cls, limit, count):
    """Lanes in the arithmetic of that name, whatever their number."""
    module = sys.modules[shared.__name__]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "arithmetic", lambda *_: getattr(module, way))
        return cls(max_steps=limit).build(count, CPU)


def put(world, states, clock=None):
    """Lanes at the physical states `[N][V]`, for `clock` steps."""
    clock = torch.zeros(len(states), dtype=torch.int64) if clock is None else torch.tensor(clock)
    world.load_state_dict({"states": torch.tensor(states, dtype=torch.float64).T, "clock": clock})


def assert_same_state(name, ours, theirs):
    """Of one step in float64: errors of 1e-16, amplified by a few. Acrobot's angles are wrapped, to one of two ends."""
    difference = np.asarray(ours) - np.asarray(theirs, np.float64)
    if name == "acrobot":
        difference[:2] = [math.remainder(angle, 2 * PI) for angle in difference[:2]]
        assert (abs(np.asarray(ours)[:2]) <= PI + 1e-12).all()
    assert (abs(difference) < 1e-10).all()


def same(one, other):
    return len(one) == len(other) and all(
        torch.equal(step[field], also[field]) for step, also in zip(one, other, strict=True) for field in step
    )


def lanes_and_actions(name):
    return st.lists(st.tuples(states(name), WORLDS[name].actions), min_size=1, max_size=5)


def rows(name, longest=12):
    return st.integers(1, 4).flatmap(
        lambda count: st.lists(
            st.lists(WORLDS[name].actions, min_size=count, max_size=count), min_size=1, max_size=longest
        )
    )


LIMITS = st.integers(0, 6)
SEEDS = st.integers(0, 2**31)


# The laws: each takes the settings class under test and the world's name first.


def law_a_step_is_gymnasiums(cls, name, chosen):
    """From any state, any action: the state, what is seen, the reward and the end are those of Gymnasium's `step`."""
    world, oracle = cls(max_steps=0).build(len(chosen), CPU), Oracle(name)
    put(world, [state for state, _ in chosen])
    (step,) = step_rows(world, [[action for _, action in chosen]], generator())
    after = world.state_dict()["states"].T
    for n, (state, action) in enumerate(chosen):
        oracle.put(state)
        observation, reward, terminated, _ = oracle.step(action)
        near(step["successors"][n], observation)
        near(step["rewards"][n], reward)
        assert bool(step["terminated"][n]) == terminated
        assert not step["truncated"][n]
        if not terminated:
            assert_same_state(name, after[n], oracle.world.state)


def law_episodes_are_gymnasiums(cls, name, limit, story, seed, clocks):
    """Through ends and limits, lane for lane, with Gymnasium's TimeLimit; each lane's next episode is begun at once.

    Lanes are of different age, so that one's end is seen not to touch the others.
    """
    count = len(story[0])
    world, draw = cls(max_steps=limit).build(count, CPU), generator(seed)
    first = world.reset(draw).clone()
    begun = world.state_dict()["states"].T
    clocks = [clock % limit if limit else clock for clock in (clocks * count)[:count]]
    put(world, begun.tolist(), clocks)
    oracles = [Oracle(name, limit) for _ in range(count)]
    for oracle, state, clock, seen in zip(oracles, begun, clocks, first, strict=True):
        oracle.put(state, clock)
        near(seen, oracle.seen())
    for row in story:
        (step,) = step_rows(world, [row], draw)
        after = world.state_dict()["states"].T
        for n, (oracle, action) in enumerate(zip(oracles, row, strict=True)):
            observation, reward, terminated, truncated = oracle.step(action)
            near(step["successors"][n], observation)
            near(step["rewards"][n], reward)
            assert (bool(step["terminated"][n]), bool(step["truncated"][n])) == (terminated, truncated)
            if terminated or truncated:
                for number, (low, high) in zip(after[n].tolist(), WORLDS[name].starts, strict=True):
                    assert low <= number <= high
                oracle.put(after[n])
            near(step["observations"][n], oracle.seen())


def law_both_flags_are_set_at_a_limit_that_is_an_end(cls, name, limit):
    """A lane that the world ends in the step in which time runs out has both; one step earlier, only the world's."""
    if name == "pendulum":  # which has no end of its own
        return
    over = {"cartpole": [2.5, 0, 0, 0], "mountain_car": [0.55, 0.05], "acrobot": [PI, 0, 0, 0]}[name]
    world = cls(max_steps=limit).build(2, CPU)
    put(world, [over, over], [limit - 1, limit - 2])
    (step,) = step_rows(world, [[1, 1]], generator())
    assert step["terminated"].tolist() == [True, True]
    assert step["truncated"].tolist() == [True, False]


def law_a_seed_is_a_story(cls, name, limit, story, seed):
    """The same generator tells the same; it is drawn from only where episodes begin; actions are left alone."""
    stories = []
    for _ in range(2):
        world, draw = cls(max_steps=limit).build(len(story[0]), CPU), generator(seed)
        first = world.reset(draw)
        stories.append([{"observations": first.clone()}, *step_rows(world, story, draw)])
    assert same(*stories)
    before = draw.get_state()
    actions = tensors(story[0])
    kept = actions.clone()
    step = world.step(actions, draw)
    assert torch.equal(actions, kept)
    assert torch.equal(draw.get_state(), before) != bool((step.terminated | step.truncated).any())


def law_saved_lanes_go_on_as_if_never_left(cls, name, limit, story, more, seed):
    """Other lanes that are handed the state tell the same from there on; what was saved stays as it was."""
    count = len(story[0])
    world, draw = cls(max_steps=limit).build(count, CPU), generator(seed)
    world.reset(draw)
    step_rows(world, story, draw)
    saved = world.state_dict()
    kept = {key: tensor.clone() for key, tensor in saved.items()}
    onward = [(row * count)[:count] for row in more]
    expected = step_rows(world, onward, generator(seed))
    assert all(torch.equal(saved[key], kept[key]) for key in kept)
    other = cls(max_steps=limit).build(count, CPU)
    other.load_state_dict(saved)
    assert same(step_rows(other, onward, generator(seed)), expected)
    assert all(torch.equal(saved[key], kept[key]) for key in kept)


def law_observations_are_in_the_space(cls, name, chosen):
    """First observations, next ones and successors, from any state that an episode comes to, are the space's."""
    world = cls(max_steps=0).build(len(chosen), CPU)
    seen = list(world.reset(generator()).clone())
    inside = [state for state, _ in chosen]
    if name == "cartpole":  # just before an episode ends
        inside = [[math.copysign(2.4, x), v, math.copysign(math.radians(12), angle), w] for x, v, angle, w in inside]
    put(world, inside)
    (step,) = step_rows(world, [[action for _, action in chosen]], generator())
    seen += [*step["observations"], *step["successors"]]
    assert all(world.observation_space.contains(row.numpy()) for row in seen)


def law_starts_are_uniform(cls, name, seed):
    """Independent, and uniform within Gymnasium's bounds, at `reset` and where an episode ends.

    n = 4000 lanes; Dvoretzky–Kiefer–Wolfowitz: P(sup|Fₙ − F| > 0.06) ≤ 2 exp(−2n·0.06²) = 6e-13. A correlation of
    independent numbers has the standard error 1/√n: 7 of them is 0.11.
    """
    count = 4000
    world, draw = cls(max_steps=1).build(count, CPU), generator(seed)
    world.reset(draw)
    first = world.state_dict()["states"]
    action = [0.0] if name == "pendulum" else 1
    world.step(tensors([action] * count), draw)
    second = world.state_dict()["states"]
    columns = []
    for drawn in (first, second):
        for numbers, (low, high) in zip(drawn.numpy(), WORLDS[name].starts, strict=True):
            assert ((low <= numbers) & (numbers <= high)).all()
            if low < high:
                shares = np.sort((numbers - low) / (high - low))
                assert abs(shares - (np.arange(count) + 0.5) / count).max() < 0.06
                columns += [numbers, np.roll(numbers, 1)]
    correlations = np.corrcoef(columns) - np.eye(len(columns))
    assert abs(correlations).max() < 0.11


def law_floats_and_arrays_tell_the_same(cls, name, limit, story, seed, state, clocks):
    """Draws, first states, ends and clocks bit for bit; what a step computes, up to the last bits of a library's sines.

    Errors of 1e-16 in one step are amplified by up to 1e3, at acrobot's highest speeds. Each step starts from the state
    that the floats have saved.
    """
    count = len(story[0])
    (floats, draw), *others = ((built(way, cls, limit, count), generator(seed)) for way in ("FLOATS", "NUMPY", "TORCH"))
    first, begun = floats.reset(draw), floats.state_dict()
    for other, drawn in others:
        near(other.reset(drawn), first)
        assert torch.equal(other.state_dict()["states"], begun["states"])
    put(floats, [state] * count, (clocks * count)[:count])
    for row in story:
        before = floats.state_dict()
        (step,), after = step_rows(floats, [row], draw), floats.state_dict()
        ended = step["terminated"] | step["truncated"]
        for other, drawn in others:
            other.load_state_dict(before)
            (also,), then = step_rows(other, [row], drawn), other.state_dict()
            for field, told_by_floats in step.items():
                near(also[field].double(), told_by_floats.double())
            difference = (then["states"] - after["states"]).numpy()
            if name == "acrobot":
                difference[:2] = [[math.remainder(angle, 2 * PI) for angle in angles] for angles in difference[:2]]
            assert (abs(difference) < 1e-12).all()
            assert torch.equal(then["states"][:, ended], after["states"][:, ended])
            assert torch.equal(then["clock"], after["clock"])
            assert torch.equal(drawn.get_state(), draw.get_state())


def strategies(law, name):
    return {
        law_a_step_is_gymnasiums: (lanes_and_actions(name),),
        law_episodes_are_gymnasiums: (LIMITS, rows(name), SEEDS, st.lists(st.integers(0, 5), min_size=1, max_size=4)),
        law_both_flags_are_set_at_a_limit_that_is_an_end: (st.integers(2, 9),),
        law_a_seed_is_a_story: (LIMITS, rows(name), SEEDS),
        law_saved_lanes_go_on_as_if_never_left: (LIMITS, rows(name), rows(name), SEEDS),
        law_observations_are_in_the_space: (lanes_and_actions(name),),
        law_starts_are_uniform: (SEEDS,),
        law_floats_and_arrays_tell_the_same: (
            LIMITS,
            rows(name),
            SEEDS,
            states(name),
            st.lists(st.integers(0, 5), min_size=1, max_size=4),
        ),
    }[law]


LAWS = (
    law_a_step_is_gymnasiums,
    law_episodes_are_gymnasiums,
    law_both_flags_are_set_at_a_limit_that_is_an_end,
    law_a_seed_is_a_story,
    law_saved_lanes_go_on_as_if_never_left,
    law_observations_are_in_the_space,
    law_starts_are_uniform,
)


def holds(law, cls, name):
    given(st.tuples(*strategies(law, name)))(lambda drawn: law(cls, name, *drawn))()


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law(law, name, arithmetic):
    holds(law, settings_class(name), name)


@pytest.mark.parametrize("name", WORLDS)
def test_law_of_floats_and_arrays(name):
    holds(law_floats_and_arrays_tell_the_same, settings_class(name), name)


# Mutants

STEP, EPISODES, AGREE = law_a_step_is_gymnasiums, law_episodes_are_gymnasiums, law_floats_and_arrays_tell_the_same
BOTH, SAVED = law_both_flags_are_set_at_a_limit_that_is_an_end, law_saved_lanes_go_on_as_if_never_left
MUTANTS = {  # of a world, which is stepped in floats; of what is shared, in the given arithmetic
    "a pole without inertia": ("cartpole", STEP, ("LENGTH * (4 / 3)", "LENGTH")),
    "semi-implicit Euler": ("cartpole", STEP, ("INTERVAL * turning\n", "INTERVAL * (turning + INTERVAL * turn)\n")),
    "no reward at the end": ("cartpole", STEP, (", 1.0, terminated", ", 1.0 - terminated, terminated")),
    "a pole may fall to one side": ("cartpole", STEP, ("abs(angle) >", "angle >")),
    "pushes one way": ("cartpole", STEP, ("(2 * action - 1)", "action")),
    "bounds at the limits": (
        "cartpole",
        law_observations_are_in_the_space,
        ("2 * FARTHEST, np.inf", "FARTHEST, np.inf"),
    ),
    "an unclipped torque": ("pendulum", STEP, ("array.clip(action, -STRONGEST, STRONGEST)", "action")),
    "an angle that is not normalised": ("pendulum", STEP, ("tilt * tilt", "angle * angle")),
    "a point mass": ("pendulum", STEP, ("1.5 * GRAVITY", "GRAVITY")),
    "the old speed moves the angle": (
        "pendulum",
        STEP,
        ("    speed = array", "    angle += INTERVAL * speed\n    speed = array"),
    ),
    "a wall that does not stop": ("mountain_car", STEP, ("(velocity > 0)", "(velocity > -1)")),
    "rolling back counts": ("mountain_car", STEP, (" & (velocity >= 0)", "")),
    "a car of no weight": ("mountain_car", STEP, ("GRAVITY * array", "0 * array")),
    "the paper's equations": ("acrobot", STEP, (" - 0.5 * upper_speed * upper_speed * sine", "")),
    "unwrapped angles": ("acrobot", STEP, ("upper = array.wrap(", "upper = (")),
    "the last step is paid for": ("acrobot", STEP, ("up * 1.0 - 1", "-1.0")),
    "Runge and Kutta's middle": ("acrobot", STEP, ("upper + half * u2", "upper + INTERVAL * u2")),
    "an angle apart": ("dynamics", AGREE, ("math.remainder(angle, math.tau)", "math.fmod(angle, math.tau)")),
    "a number apart": ("dynamics", AGREE, ("highest if number > highest", "lowest if number > highest")),
    "late by a step": ("lanes NUMPY", EPISODES, ("self._clock >= self._limit\n", "self._clock > self._limit\n")),
    "a lane late by a step": ("lanes FLOATS", EPISODES, ("time >= self._limit", "time > self._limit")),
    "the clock goes on": ("lanes NUMPY", EPISODES, ("self._clock[ended] = 0", "pass")),
    "a lane's clock goes on": (
        "lanes FLOATS",
        EPISODES,
        ("dynamics.begin(drawn), 0", "dynamics.begin(drawn), clock[lane]"),
    ),
    "the end is seen": ("lanes NUMPY", EPISODES, ("        if len(ended):", "        if False:")),
    "a lane's end is seen": ("lanes FLOATS", EPISODES, ("True in terminated or True in truncated", "False")),
    "a lane's limit is passed": (
        "lanes FLOATS",
        EPISODES,
        ("True in terminated or True in truncated", "True in terminated"),
    ),
    "all begin anew": (
        "lanes NUMPY",
        EPISODES,
        ("where(self._terminated | self._truncated)", "where(self._clock > 0)"),
    ),
    "all lanes begin anew": ("lanes FLOATS", EPISODES, (" if terminated[lane] or truncated[lane]", "")),
    "the world's end hides the limit": (
        "lanes NUMPY",
        BOTH,
        ("= self._clock >= self._limit", "= (self._clock >= self._limit) & ~self._terminated"),
    ),
    "the world's end hides a lane's limit": (
        "lanes FLOATS",
        BOTH,
        ("[time >= self._limit for time in clock]", "[t >= self._limit and not o for t, o in zip(clock, terminated)]"),
    ),
    "successors are what is seen": (
        "lanes NUMPY",
        EPISODES,
        ("self._clock[ended] = 0\n", "self._clock[ended] = 0\n        self._successors[:] = self._observations\n"),
    ),
    "a lane's successor is what is seen": (
        "lanes FLOATS",
        EPISODES,
        (
            "            self._write_observations(*self._observe(states))\n        else:\n",
            "            pass\n        if True:\n",
        ),
    ),
    "single precision": ("lanes FLOATS", STEP, ('state["states"].T', 'state["states"].float().T')),
    "single precision in arrays": (
        "lanes NUMPY",
        STEP,
        ('state["states"].to(device', 'state["states"].float().to(device'),
    ),
    "whole torques": (
        "lanes NUMPY",
        AGREE,
        ("torch.zeros(num_envs, dtype=torch.float64", "torch.zeros(num_envs, dtype=torch.int64"),
    ),
    "one draw for all lanes": (
        "lanes",
        law_starts_are_uniform,
        ("torch.rand(shape,", "torch.rand((shape[0], 1),"),
        ("generator=generator)", "generator=generator).expand(shape)"),
    ),
    "only positive starts": ("dynamics", law_starts_are_uniform, ("lowest + (highest", "(highest")),
    "the global generator": (
        "lanes",
        law_a_seed_is_a_story,
        ("device=generator.device, generator=generator", "device=generator.device"),
    ),
    "the saved state moves on": (
        "lanes NUMPY",
        SAVED,
        ("torch.as_tensor(self._clock).clone()", "torch.as_tensor(self._clock)"),
    ),
    "the state that was loaded moves on": (
        "lanes NUMPY",
        SAVED,
        ('state["clock"].to(device, copy=True)', 'state["clock"]'),
    ),
    "the clock is not put back": ("lanes NUMPY", SAVED, ('state["clock"].to(', '(state["clock"] * 0).to(')),
    "a lane's clock is not put back": (
        "lanes FLOATS",
        SAVED,
        ('state["clock"].tolist()', '(state["clock"] * 0).tolist()'),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutant_is_killed(mutant, monkeypatch):
    place, law, *changes = MUTANTS[mutant]
    place, _, way = place.partition(" ")
    name = place if place in WORLDS else "pendulum" if law is AGREE else "cartpole"
    for part in (shared_dynamics.__name__, shared.__name__):
        changed = changes if part.endswith(place) else ()
        monkeypatch.setitem(sys.modules, part, mutate(part, *changed))
    if way:
        module = sys.modules[shared.__name__]
        monkeypatch.setattr(module, "arithmetic", lambda *_: getattr(module, way))
    cls = getattr(mutate(WORLDS[name].module, *(changes if name == place else ())), WORLDS[name].cls)
    is_killed(law, *strategies(law, name), arguments=(cls, name))


@pytest.mark.slow
def test_an_unchanged_copy_lives(monkeypatch):
    """So it is the change that kills."""
    for part in (shared_dynamics.__name__, shared.__name__):
        monkeypatch.setitem(sys.modules, part, mutate(part))
    for name, world in WORLDS.items():
        cls = getattr(mutate(world.module), world.cls)
        for law in (*LAWS, law_floats_and_arrays_tell_the_same):
            holds(law, cls, name)
