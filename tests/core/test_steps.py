"""A run's length in environment steps: `steps`, beside `iterations`."""

import json
import tomllib

import pytest
import torch
from framework_parts import CartPole, Gymnasium

import framework
from framework.cli import main
from framework.setup.layers import merge


def parameters(result):
    return torch.cat([parameter.detach().flatten() for parameter in result.policy.parameters()])


def fixed(**given):
    return framework.train(recipe="ppo", environment=CartPole(), rollout={"lanes": 2, "fixed_steps": 16}, **given)


@pytest.mark.parametrize(("steps", "iterations"), [(1, 1), (31, 1), (32, 1), (33, 2), (320, 10)])
def test_the_run_ends_after_the_iteration_that_reaches_them(steps, iterations):
    result = fixed(steps=steps)
    assert result.metrics["steps"].tolist() == [32 * (k + 1) for k in range(iterations)]


def test_so_does_one_of_whole_episodes():
    """How many iterations it takes, nobody knows before: the last one reaches the number, and none before it does."""
    steps = framework.train(steps=1000).metrics["steps"]
    assert steps[-1] >= 1000
    assert (steps[:-1] < 1000).all()
    assert len(steps) > 1


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_steps_of_whole_iterations_are_the_same_run_bit_for_bit(schedule):
    by_steps = fixed(steps=160, optimizer={"schedule": schedule})
    by_iterations = fixed(iterations=5, optimizer={"schedule": schedule})
    assert torch.equal(parameters(by_steps), parameters(by_iterations))


def test_schedules_follow_the_fraction_of_the_steps_that_were_taken():
    result = fixed(steps=100, optimizer={"lr": 1.0})
    assert result.metrics["lr"].tolist() == pytest.approx([1.0, 0.68, 0.36, 0.04], rel=1e-12)
    whole = framework.train(steps=1000, optimizer={"lr": 1.0, "schedule": "linear"})
    before = [0, *whole.metrics["steps"][:-1]]
    assert whole.metrics["lr"].tolist() == pytest.approx([1 - taken / 1000 for taken in before], rel=1e-12)


def test_with_both_the_first_that_comes_ends_the_run():
    assert fixed(steps=320, iterations=3).metrics["steps"][-1] == 96
    assert fixed(steps=64, iterations=300).metrics["steps"][-1] == 64


def test_rows_that_are_no_real_steps_do_not_count():
    """Gymnasium's next-step reset: an iteration of 64 rows has fewer real steps, and the run goes on until they are."""
    world = Gymnasium(vectorization_mode="sync", autoreset="next_step")
    result = framework.train(recipe="ppo", environment=world, rollout={"lanes": 4, "fixed_steps": 64}, steps=1024)
    steps = result.metrics["steps"]
    assert steps[0] < 256
    assert steps[-1] >= 1024 > steps[-2]


def test_naming_one_length_drops_the_other_of_lower_layers():
    assert merge({"iterations": 5}, {"steps": 7}) == {"steps": 7}
    assert merge({"steps": 7}, {"iterations": 5}) == {"iterations": 5}
    assert merge({"steps": 7, "iterations": 9}, {"seed": 1}) == {"steps": 7, "iterations": 9, "seed": 1}
    assert merge({"iterations": 5}, {"steps": 7, "iterations": 6}) == {"steps": 7, "iterations": 6}


@pytest.mark.slow
def test_the_record_says_steps_and_repeats_the_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--recipe", "ppo", "--steps", "3000", "--name", "first", "--quiet"]) == 0
    tree = tomllib.loads((tmp_path / "runs" / "first" / "config.toml").read_text())
    assert tree["steps"] == 3000
    assert "iterations" not in tree
    assert main(["run", "--config", "runs/first", "--name", "second", "--reports", "record"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 3072
    one, other = (tmp_path / "runs" / name / "policy.safetensors" for name in ("first", "second"))
    assert one.read_bytes() == other.read_bytes()
    assert main(["show", "--config", "runs/first", "--iterations", "4"]) == 0
    tree = tomllib.loads(capsys.readouterr().out)
    assert (tree["iterations"], "steps" in tree) == (4, False)


def test_the_progress_bar_counts_steps(monkeypatch):
    from framework_reports import progress

    made = []

    class Seen:
        def __init__(self, unit, total, beside):
            self.unit, self.total, self.counts = unit, total, []
            made.append(self)

        def is_due(self, count):
            return True

        def show(self, count, **reported):
            self.counts.append(count)

        def stop(self):
            pass

    monkeypatch.setattr(progress, "Bar", Seen)
    fixed(steps=64, extensions=["progress"])
    fixed(iterations=3, extensions=["progress"])
    assert [(bar.unit, bar.total, list(dict.fromkeys(bar.counts))) for bar in made] == [
        ("step", 64, [0, 32, 64]),
        ("iteration", 3, [0, 1, 2, 3]),
    ]
