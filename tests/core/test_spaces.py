"""Spaces are in the record: written and read back exactly, and compared where a policy meets an environment."""

import copy
import json
import pickle
import sys

import numpy as np
import pytest
import torch
from attrs import frozen
from foreign import publish
from framework_classic import CartPole, Pendulum
from framework_line_world import LineWorld
from framework_policies import Gaussian
from framework_reinforce import Categorical
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import framework
from framework import UsageError
from framework.cli import main
from framework.records.record import SPACES, read_spaces
from framework.spaces import compare, fits, from_json, to_json

FLOATS = st.sampled_from([np.float16, np.float32, np.float64])
INTEGERS = st.sampled_from([np.int8, np.uint8, np.int32, np.int64, np.uint64])
SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, max_side=3)


@st.composite
def boxes(draw):
    """Boxes of any dtype and shape, with bounds of any size, alike in all places or not."""
    dtype, shape = draw(FLOATS | INTEGERS), draw(SHAPES)
    if np.issubdtype(dtype, np.floating):
        numbers = arrays.from_dtype(np.dtype(dtype), allow_nan=False)
    else:
        numbers = st.integers(int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    one, other = (draw(arrays.arrays(dtype, shape, elements=numbers, fill=numbers)) for _ in range(2))
    low, high = np.minimum(one, other), np.maximum(one, other)
    low = np.where(low == np.inf, 0, low).astype(dtype)  # Gymnasium has no box from ∞, nor one to −∞
    high = np.where(high == -np.inf, 0, high).astype(dtype)
    return spaces.Box(np.minimum(low, high), high, shape, dtype)


def simple():
    counts = st.lists(st.tuples(st.integers(1, 9), st.integers(-9, 9)), min_size=1, max_size=4)
    return st.one_of(
        boxes(),
        st.builds(lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 9), st.integers(-9, 9)),
        counts.map(lambda pairs: spaces.MultiDiscrete([n for n, _ in pairs], start=[first for _, first in pairs])),
        st.integers(1, 5).map(spaces.MultiBinary),
        st.lists(st.integers(1, 3), min_size=1, max_size=3).map(spaces.MultiBinary),
    )


def nested():
    names = st.text(min_size=1, max_size=3)
    return st.recursive(
        simple(),
        lambda inner: (
            st.lists(inner, min_size=1, max_size=3).map(spaces.Tuple)
            | st.dictionaries(names, inner, min_size=1, max_size=3).map(lambda found: spaces.Dict(list(found.items())))
        ),
        max_leaves=5,
    )


def same(one, other):
    """Exactly: Gymnasium's own comparison lets bounds differ a little."""
    if isinstance(one, spaces.Dict):
        return list(one.spaces) == list(other.spaces) and all(same(one[key], other[key]) for key in one.spaces)
    if isinstance(one, spaces.Tuple):
        return all(same(*pair) for pair in zip(one.spaces, other.spaces, strict=True))
    if isinstance(one, spaces.Box) and not (
        np.array_equal(one.low, other.low) and np.array_equal(one.high, other.high)
    ):
        return False
    return one == other and one.dtype == other.dtype and one.shape == other.shape


@pytest.mark.slow
@given(nested())
def test_a_space_is_read_back_exactly(space):
    """Through JSON that any reader takes: infinities are no numbers there."""
    written = json.dumps(to_json(space), allow_nan=False)
    assert same(space, from_json(json.loads(written)))


def test_a_picture_s_bounds_are_two_numbers():
    assert len(json.dumps(to_json(spaces.Box(0, 255, (210, 160, 3), np.uint8)))) < 100


@pytest.mark.parametrize("space", [spaces.Text(4), spaces.Tuple((spaces.Discrete(2), spaces.Text(4)))])
def test_a_space_of_another_kind_is_not_written(space):
    assert to_json(space) is None


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"type": "Text"}', '{"type": "Box"}', '{"type": "Discrete", "n": "x", "start": 0}', "3"]
)
def test_what_is_no_space_is_refused(text):
    with pytest.raises(ValueError, match="."):
        from_json(json.loads(text))


# In the record


def recorded(folder, **parts):
    return framework.train(iterations=1, directory=folder / "run", **parts).policy


def test_the_record_holds_the_spaces(tmp_path):
    recorded(tmp_path, environment=Pendulum(), policy=Gaussian())
    observations, actions = read_spaces(tmp_path / "run")
    environment = Pendulum().build(1, torch.device("cpu"))
    assert same(observations, environment.observation_space)
    assert same(actions, environment.action_space)


def test_a_spaces_file_that_is_broken_is_named(tmp_path):
    recorded(tmp_path)
    (tmp_path / "run" / SPACES).write_text('{"observations": 3}')
    with pytest.raises(UsageError, match=r"run/spaces\.json does not hold the spaces of a run: "):
        framework.load(tmp_path / "run")


WORLD = """
    from attrs import frozen
    from framework import hookimpl
    from framework_line_world import LineWorld

    @frozen
    class Far(LineWorld):
        "As far as wanted."

        def build(self, num_envs, device):
            import acme_simulator  # of a large package
            return super().build(num_envs, device)

    @hookimpl
    def environments():
        return {"far": Far}
"""


def test_a_policy_is_read_back_without_its_environment(tmp_path, monkeypatch):
    """Neither the simulator nor the environment's plugin is installed where only the policy is wanted."""
    with monkeypatch.context() as patch:
        publish(tmp_path / "site", patch, "acme-rl", {"acme": "acme_world"}, acme_world=WORLD, acme_simulator="")
        monkeypatch.chdir(tmp_path)
        assert main(["run", "--environment", "far", "--iterations", "1", "--name", "far", "--quiet"]) == 0
        trained = framework.load("runs/far").state_dict()
        monkeypatch.setitem(sys.modules, "acme_simulator", None)  # an import of it fails
        for name, tensor in framework.load("runs/far").state_dict().items():
            assert torch.equal(tensor, trained[name])
    for name, tensor in framework.load("runs/far").state_dict().items():
        assert torch.equal(tensor, trained[name])


def test_a_record_without_the_file_builds_its_environment(tmp_path):
    policy = recorded(tmp_path, environment=LineWorld(goal=7))
    (tmp_path / "run" / SPACES).unlink()
    assert framework.load(tmp_path / "run").state_dict().keys() == policy.state_dict().keys()


# A policy and an environment


def test_bounds_may_differ_and_kind_shape_and_dtype_may_not():
    box = spaces.Box(-1.0, 1.0, (2,), np.float32)
    assert fits(box, spaces.Box(-2.0, 9.0, (2,), np.float32))
    for other in (spaces.Box(-1.0, 1.0, (2, 1), np.float32), spaces.Box(-1.0, 1.0, (2,), np.float64)):
        assert not fits(box, other)
    assert not fits(box, spaces.Discrete(2))
    assert not fits(spaces.Discrete(2), spaces.Discrete(2, start=1))
    assert fits(spaces.Tuple((box,)), spaces.Tuple((spaces.Box(0.0, 1.0, (2,), np.float32),)))
    assert not fits(spaces.Tuple((box,)), spaces.Tuple((box, box)))
    assert fits(spaces.Dict(a=box), spaces.Dict(a=spaces.Box(0.0, 1.0, (2,), np.float32)))
    assert not fits(spaces.Dict(a=box), spaces.Dict(b=box))


@frozen
class World:
    observation_space: object
    action_space: object = spaces.Discrete(2)


def test_other_bounds_are_a_warning_that_names_both():
    trained = spaces.Box(-1.0, 1.0, (2,)), spaces.Discrete(2)
    message = r"p was trained on observations Box\(-1.0, 1.0, .* and w has observations Box\(0.0, 1.0, .*: other bounds"
    with pytest.warns(RuntimeWarning, match=message):
        compare(trained, World(spaces.Box(0.0, 1.0, (2,))), "p", "w")
    compare(trained, World(spaces.Box(-1.0, 1.0, (2,))), "p", "w")


@pytest.mark.slow
@pytest.mark.parametrize("way", ["as it is", "pickled", "copied", "the result", "read back"])
def test_a_policy_of_another_world_is_refused_with_both_spaces(tmp_path, way):
    result = framework.train(iterations=1, environment=LineWorld(goal=4), directory=tmp_path / "run")
    policy = {
        "as it is": lambda: result.policy,
        "pickled": lambda: pickle.loads(pickle.dumps(result.policy)),
        "copied": lambda: copy.deepcopy(result.policy),
        "the result": lambda: result,
        "read back": lambda: framework.load(tmp_path / "run"),
    }[way]()
    assert framework.evaluate(policy, LineWorld(goal=4), episodes=2).returns.shape == (2,)
    message = (
        r"policy 'CategoricalPolicy' was trained on observations Discrete\(5\), and environment 'line_world' "
        r"\(plugin line_world\) has observations Discrete\(9\): choose the environment and settings"
    )
    with pytest.raises(UsageError, match=message):
        framework.evaluate(policy, LineWorld(goal=8), episodes=2)
    with pytest.raises(UsageError, match=r"trained on observations Discrete\(5\), .* has observations Box\("):
        framework.evaluate(policy, CartPole(), episodes=2)


@pytest.mark.parametrize(
    ("policy", "got"),
    [
        (None, "None"),
        (print, "a builtin_function_or_method"),
        (lambda observations: 0, "a function"),
        (Categorical, "the class Categorical"),
        (Categorical(), r"settings, Categorical\(.*\): framework.train\(policy=…\) trains one"),
        ("runs/first", r"'runs/first': framework.load\('runs/first'\) reads the policy of a record"),
        (torch.nn.Linear(1, 1), r"a Linear without act and evaluate\(\)"),
        ({}, "a dict"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_policy_is_refused_with_the_way_to_one(policy, got):
    message = f"^policy must be a trained policy, as framework.load and framework.train give it, got {got}$"
    with pytest.raises(UsageError, match=message):
        framework.evaluate(policy, LineWorld(), episodes=2)


@pytest.mark.parametrize("command", ["evaluate", "audit"])
def test_commands_compare_them_too(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    recorded(tmp_path)
    assert main([command, "run", "--episodes", "16", "--environment.goal", "6"]) == 2
    assert (
        "was trained on observations Discrete(5), and environment 'line_world' (plugin line_world) has observations "
        "Discrete(7): choose the environment"
    ) in capsys.readouterr().err
