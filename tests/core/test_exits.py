"""What is no `Exception` (exits, panics) is named like one, and all that was opened is closed."""

import pytest
from attrs import frozen
from failing_runs import failing
from framework_line_world import LineWorld
from framework_reinforce import Categorical

import framework
from framework import PartError, UsageError, hookimpl
from framework.cli import main

# What is no Exception


class Panic(BaseException):
    """As a library in Rust raises it."""

    __module__ = "pyo3_runtime"


NO_EXCEPTIONS = [Panic("boom"), SystemExit(0), GeneratorExit()]


def raising(error, method):
    """A line world that raises in one method; `closed` counts."""
    closed = []

    @frozen
    class Raising:
        "Of this test."

        def build(self, lanes, device):
            if method == "build":
                raise error
            made = LineWorld(goal=4).build(lanes, device)

            class World:
                observation_space, action_space = made.observation_space, made.action_space
                reset = made.reset

                def step(self, actions, generator):
                    if method == "step":
                        raise error
                    return made.step(actions, generator)

                def close(self):
                    closed.append(self)
                    if method == "close":
                        raise error

            return World()

    return Raising(), closed


@frozen
class Slow:
    "The categorical policy, acting step by step."

    def build(self, *spaces):
        policy = Categorical().build(*spaces)
        policy.__class__ = type("Stepped", (type(policy),), {"actor": lambda self: None})
        return policy


@pytest.mark.parametrize("where", ["needs", "call"])
def test_a_part_that_exits_is_no_success_for_any_command(here, capsys, where):
    (here / "leaves.py").write_text(LEAVES)
    plugins = ["--plugins", "line_world,reinforce,reports,./leaves.py", "--estimator", where]
    assert main(["run", *plugins, "--iterations", "1", "--name", "a"]) in (1, 2)
    expected = {"needs": "(plugin leaves): needs raised SystemExit: 0", "call": "(plugin leaves) raised Panic: boom"}
    assert expected[where] in capsys.readouterr().err


def test_a_check_survives_what_is_no_exception(here, capsys):
    (here / "leaves.py").write_text(LEAVES)
    assert main(["check", "./leaves.py", "--quick", "--examples", "5"]) == 1
    said = capsys.readouterr().out
    assert "raised Panic: boom" in said
    assert "SystemExit" in said


LEAVES = """
import sys

from attrs import frozen
from framework import hookimpl


class Panic(BaseException):
    "As a library in Rust raises it."


@frozen
class Needs:
    "Exits when it is asked what it needs."

    @property
    def needs(self):
        sys.exit(0)

    def __call__(self, rollout):
        pass


@frozen
class Calls:
    "Panics when it is called."

    def __call__(self, rollout):
        raise Panic("boom")


@hookimpl
def estimators():
    return {"needs": Needs, "call": Calls}
"""


@pytest.mark.parametrize("error", NO_EXCEPTIONS, ids=lambda error: type(error).__name__)
def test_what_is_no_exception_is_named_like_one(error, tmp_path):
    label = r"environment 'Raising' .plugin test_exits."
    name = type(error).__name__
    with pytest.raises(UsageError, match=f"{label} cannot be built: {name}: "):
        framework.train(environment=raising(error, "build")[0], directory=tmp_path / "run")
    world, closed = raising(error, "step")
    with pytest.raises(PartError, match=f"{label} raised {name}: ") as caught:
        framework.train(environment=world, policy=Slow(), rollout=framework.RolloutSettings(lanes=3), iterations=1)
    assert "It was raised at step 0 of the rollout, which has 3 lanes." in caught.value.__notes__
    assert len(closed) == 1
    with pytest.raises(PartError, match=f"{label} raised {name}: "):
        framework.evaluate(framework.train(iterations=1, policy=Slow()), world, episodes=2)
    assert len(closed) == 2
    with pytest.raises(PartError, match=f"extension 'Acts' .* raised {name}: "):
        framework.train(extensions=[failing(type(error)(*error.args))[1]], directory=tmp_path / "run")
    assert (tmp_path / "run" / "last.safetensors").is_file()


@pytest.mark.parametrize("error", [*NO_EXCEPTIONS, OSError("broken pipe")], ids=lambda error: type(error).__name__)
def test_what_a_close_raises_is_a_warning_and_the_others_are_closed(error):
    world, closed = raising(error, "close")
    label = r"environment 'Raising' .plugin test_exits."
    rollout = framework.RolloutSettings(lanes=4, shards=2)
    with pytest.warns(RuntimeWarning, match=rf"{label}: close\(\) raised {type(error).__name__}: ") as caught:
        result = framework.train(environment=world, rollout=rollout, iterations=1)
    assert (result.run.iteration, len(closed), len(caught)) == (1, 2, 2)


def test_a_part_that_exits_while_it_is_built_is_no_success(here, capsys):
    (here / "leaves.py").write_text(
        "import sys\nfrom attrs import frozen\nfrom framework import hookimpl\n\n@frozen\nclass Leaves:\n"
        "    def build(self):\n        sys.exit(0)\n\n@hookimpl\ndef losses():\n    return {'leaves': Leaves}\n"
    )
    assert main(["run", "--plugins", "line_world,reinforce,reports,./leaves.py", "--loss", "leaves"]) == 2
    assert "error: loss 'leaves' (plugin leaves) cannot be built: SystemExit: 0" in capsys.readouterr().err


@frozen
class Opened:
    """An extension that holds something open."""

    def build(self, run):
        return self

    @hookimpl
    def run_started(self):
        pass

    def close(self):
        CLOSED.append(self)


CLOSED = []


@frozen
class Unbuilt:
    """An extension that cannot be built."""

    def build(self, run):
        raise ValueError("no such server")


@frozen
class NoPolicy:
    """A policy that takes no action space."""

    def build(self, observations, actions):
        raise UsageError("policy 'NoPolicy' takes no such actions")


def test_what_was_built_is_closed_where_something_else_cannot_be(tmp_path):
    """Environments of all shards, that of evaluations, other extensions; whatever is refused, and wherever."""
    from framework_evaluation import Evaluate

    world, closed = raising(None, "nothing")
    CLOSED.clear()
    opened = Opened()
    parts = {"environment": world, "rollout": framework.RolloutSettings(lanes=4, shards=2)}
    with pytest.raises(UsageError, match="takes no such actions"):
        framework.train(**parts, policy=NoPolicy())
    assert len(closed) == 2
    with pytest.raises(UsageError, match="extension 'Unbuilt' .* cannot be built: ValueError: no such server"):
        framework.train(**parts, extensions=[opened, Evaluate(), Unbuilt()])
    assert (len(closed), len(CLOSED)) == (5, 1)
    (tmp_path / "run").mkdir()
    with pytest.raises(UsageError, match="exists"):
        framework.train(**parts, extensions=[opened, Evaluate()], directory=tmp_path / "run")
    assert (len(closed), len(CLOSED)) == (8, 2)
    framework.train(**parts, extensions=[opened, Evaluate(every=1, episodes=2)], iterations=1)
    assert (len(closed), len(CLOSED)) == (11, 3)
