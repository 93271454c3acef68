"""A run's record: complete, readable, and enough to repeat the run bit for bit."""

import csv
import hashlib
import json
import math
import tomllib

import framework_baselines
import framework_line_world
import framework_standardize
import numpy as np
import pytest
import torch
from attrs import frozen
from foreign import ESTIMATOR, publish
from framework_reports.plot import learning_curve, spread_of
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

import framework
from framework import PartError, RolloutSettings, UsageError, hookimpl
from framework.cli import main
from framework.records.record import MetricsFile, create_next_run_directory, create_run_directory, write_policy

METRICS_OF_TIME = ("seconds", "steps_per_second")


def rows(record):
    with (record / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_record_holds_these_files_and_no_pickle(here):
    assert main(["run", "--iterations", "3", "--name", "first"]) == 0
    record = here / "runs" / "first"
    assert {path.name for path in record.iterdir()} == {
        *("config.toml", "plugins.json", "metrics.csv", "gradients.json", "policy.safetensors", "learning_curve.png"),
        *("spaces.json", "signature.json"),
    }
    assert (record / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert len({path.stat().st_mode for path in record.iterdir()}) == 1  # who may read one may read all


def test_the_configuration_is_complete(here):
    """Every section, every setting of every part, the seed and the resolved plugins: nothing hangs on a default."""
    main(["run", "--iterations", "1", "--name", "first", "--extensions", "standardize"])
    tree = tomllib.loads((here / "runs" / "first" / "config.toml").read_text())
    assert tree["environment"] == {
        "name": "line_world", "goal": 4, "step_reward": -1.0, "goal_reward": 10.0, "max_steps": 100, "group_size": 0
    }  # fmt: skip
    assert tree["policy"] == {
        "name": "categorical", "hidden": [32], "activation": "relu", "embedding": 8, "orthogonal": False,
        "normalize": False
    }  # fmt: skip
    assert tree["estimator"] == {"name": "rewards_to_go", "gamma": 0.99, "discounted_objective": False}
    assert (tree["baseline"], tree["loss"]) == ({"name": "none"}, {"name": "reinforce", "entropy": 0.0})
    assert tree["rollout"] == {"lanes": 8, "steps": 128, "shards": 1, "max_episode_steps": 100_000}
    assert tree["update"] == {"epochs": 1, "minibatches": 1, "denominator": "per_step", "constant": 1.0}
    assert tree["optimizer"] == {
        "name": "Adam", "lr": 0.001, "schedule": "constant", "final": 0.0, "options": {}
    }  # fmt: skip
    assert tree["extensions"]["names"] == ["standardize"]
    assert tree["extensions"]["standardize"]["within"] == "batch"
    assert tree["reports"] == ["progress", "record", "plot"]
    assert {"line_world", "reinforce", "reports", "standardize"} <= set(tree["plugins"])
    assert (tree["seed"], tree["iterations"], tree["device"], tree["threads"]) == (0, 1, "cpu", 1)


VARIANTS = [
    [],
    ["--rollout.episodes", "7", "--rollout.lanes", "3", "--baseline", "leave_one_out", "--seed", "5"],
    ["--update.epochs", "2", "--update.minibatches", "4", "--update.max-grad-norm", "0.5", "--rollout.shards", "2"],
    ["--extensions", "standardize", "--extensions.standardize.within", "minibatch", "--estimator", "total_return"],
    ["--policy.hidden", "16", "16", "--policy.activation", "tanh", "--environment.max-steps", "0"],
    ["--optimizer.name", "SGD", "--optimizer.options", "momentum", "0.9", "--loss.entropy", "0.01"],
]


@pytest.mark.slow
@pytest.mark.parametrize("words", VARIANTS, ids=[" ".join(words[:2]) or "defaults" for words in VARIANTS])
def test_a_run_is_repeated_from_its_configuration_bit_for_bit(here, words):
    assert main(["run", "--iterations", "6", "--name", "first", *words]) == 0
    assert main(["run", "--config", "runs/first/config.toml", "--name", "second"]) == 0
    first, second = here / "runs" / "first", here / "runs" / "second"
    for name in ("policy.safetensors", "config.toml", "plugins.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    for one, other in zip(rows(first), rows(second), strict=True):
        assert {k: v for k, v in one.items() if k not in METRICS_OF_TIME} == {
            k: v for k, v in other.items() if k not in METRICS_OF_TIME
        }


@pytest.mark.slow
def test_another_seed_is_another_run(here):
    for name, seed in (("one", "1"), ("two", "2")):
        main(["run", "--iterations", "2", "--name", name, "--seed", seed])
    one, two = (here / "runs" / name / "policy.safetensors" for name in ("one", "two"))
    assert one.read_bytes() != two.read_bytes()


def test_a_record_asks_for_the_plugins_that_it_used_and_no_others(here, monkeypatch):
    """What else was installed that day may be gone when the run is repeated."""
    publish(here / "site", monkeypatch, "acme-rl", {"acme": "acme_unused"}, acme_unused=ESTIMATOR)
    main(["run", "--iterations", "1", "--name", "first"])
    tree = tomllib.loads((here / "runs" / "first" / "config.toml").read_text())
    assert tree["plugins"] == ["line_world", "reinforce", "reports"]
    recorded = json.loads((here / "runs" / "first" / "plugins.json").read_text())
    assert [plugin["name"] for plugin in recorded["plugins"]] == tree["plugins"]


def test_plugins_are_recorded_with_version_distribution_and_hash(here):
    main(["run", "--iterations", "1", "--name", "first"])
    recorded = json.loads((here / "runs" / "first" / "plugins.json").read_text())
    assert recorded["versions"]["torch"] == torch.__version__
    assert recorded["versions"]["numpy"] == np.__version__
    (world,) = [plugin for plugin in recorded["plugins"] if plugin["name"] == "line_world"]
    with open(framework_line_world.__file__, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    assert world == {
        "name": "line_world",
        "version": framework.__version__,
        "distribution": "framework-rl",
        "module": "framework_line_world",
        "sha256": digest,
    }


def test_the_metrics_file_is_the_history(tmp_path):
    result = framework.train(
        iterations=4, directory=tmp_path / "run", rollout=RolloutSettings(fixed_steps=3, lanes=2), **without_ends()
    )
    read = rows(tmp_path / "run")
    assert list(read[0]) == list(result.metrics)
    for name, column in result.metrics.items():
        numbers = [float(row[name]) if row[name] else math.nan for row in read]
        assert np.array_equal(numbers, column, equal_nan=True), name
    assert read[0]["mean_return"] == ""  # no episode ended in three steps: no number, rather than a wrong one


def without_ends():
    """Parts that accept fixed steps."""

    @frozen
    class Rewards:
        "Of this test."

        def __call__(self, rollout):
            return framework.Estimate(rollout.rewards, rollout.rewards)

    return {"estimator": Rewards()}


def test_metrics_are_on_disk_row_by_row(tmp_path):
    seen = []

    @frozen
    class Reads:
        "Of this test."

        def build(self, run):
            return Reader()

    class Reader:
        @hookimpl
        def iteration_finished(self, run):
            seen.append(len(rows(run.directory)))

    framework.train(iterations=3, directory=tmp_path / "run", extensions=[Reads()])
    assert seen == [1, 2, 3]


def test_a_metric_that_appears_later_gets_a_column(tmp_path):
    file = MetricsFile(tmp_path / "metrics.csv")
    file.add({"a": 1.0}, {"a": [1.0]})
    file.add({"a": 2.0, "b": 5.0}, {"a": [1.0, 2.0], "b": [math.nan, 5.0]})
    file.add({"a": 3.0}, {"a": [1.0, 2.0, 3.0], "b": [math.nan, 5.0]})
    file.close()
    assert (tmp_path / "metrics.csv").read_text().split() == ["a,b", "1.0,", "2.0,5.0", "3.0,"]


def test_numbers_are_written_so_that_they_are_read_back_exactly(tmp_path):
    file = MetricsFile(tmp_path / "metrics.csv")
    numbers = {"third": 1 / 3, "large": 1e300, "count": 12}
    file.add(numbers, {name: [number] for name, number in numbers.items()})
    file.close()
    assert {name: float(text) for name, text in rows(tmp_path)[0].items()} == numbers


def test_what_a_killed_run_left_does_not_decide_who_may_read(tmp_path):
    (left := tmp_path / "policy.safetensors.part").touch(0o600)
    write_policy(tmp_path, torch.nn.Linear(1, 1))
    (usual := tmp_path / "usual").touch()
    assert (tmp_path / "policy.safetensors").stat().st_mode == usual.stat().st_mode
    assert not left.exists()


def test_the_trained_policy_is_given_back_ready_to_act(tmp_path):
    result = framework.train(iterations=3, seed=2, directory=tmp_path / "run")
    policy = framework.load(tmp_path / "run")
    for name, tensor in load_file(tmp_path / "run" / "policy.safetensors").items():
        assert torch.equal(tensor, result.policy.state_dict()[name])
        assert torch.equal(tensor, policy.state_dict()[name])
    assert not policy.training
    action = policy.act(framework.Inputs(torch.tensor([0, 1, 2])), torch.Generator().manual_seed(0))
    assert action.actions.shape == (3,)


# What extensions and the baseline keep


@frozen(eq=False)
class Counting:
    """Counts iterations; what it says of its state is given."""

    state: object = None

    def build(self, run):
        return Counter(self.state)


class Counter:
    def __init__(self, state):
        self.count, self.state = 0, state

    @hookimpl
    def iteration_finished(self):
        self.count += 1

    def state_dict(self):
        return {"count": torch.tensor(self.count)} if self.state is None else self.state


def test_states_are_kept_under_the_names_of_their_owners(tmp_path):
    """An extension's and the baseline's; what the run holds under `run.extensions` are the working objects."""
    result = framework.train(
        iterations=3,
        baseline=framework_baselines.MovingAverage(),
        extensions=[Counting(), framework_standardize.Standardize()],
        directory=tmp_path / "run",
    )
    kept = load_file(tmp_path / "run" / "extensions.safetensors")
    assert kept.keys() == {"Counting.count", "baseline.state"}
    assert int(kept["Counting.count"]) == 3
    again = framework_baselines.MovingAverage().build()
    again.load_state_dict({"state": kept["baseline.state"]})
    assert again.state_dict()["state"].equal(result.run.baseline.state_dict()["state"])
    assert list(result.run.extensions) == ["record", "plot", "Counting", "standardize"]
    assert type(result.run.extensions["Counting"]) is Counter


def test_without_state_there_is_no_file(tmp_path):
    framework.train(iterations=1, extensions=[Counting({})], directory=tmp_path / "run")
    assert not list((tmp_path / "run").glob("extensions*"))


def test_a_state_that_is_no_tensor_is_refused_with_its_owner(tmp_path):
    message = r"extension 'Counting' \(plugin .*\): state_dict: 'count': expected a tensor, got int"
    with pytest.raises(PartError, match=message):
        framework.train(iterations=1, extensions=[Counting({"count": 3})], directory=tmp_path / "run")
    assert (tmp_path / "run" / "policy.safetensors").is_file()  # what was learnt is not lost


# The curve


def test_the_curve_names_its_axes_and_shows_the_spread():
    result = framework.train(iterations=30, seed=4)
    figure = learning_curve(result.run, smooth=10)
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("environment steps", "return of an episode (undiscounted)")
    assert axes.get_title() == "line_world · categorical · rewards_to_go · none · seed 4"
    dots, line = axes.lines
    assert np.array_equal(dots.get_xdata(), result.metrics["steps"])
    assert np.array_equal(dots.get_ydata(), result.metrics["mean_return"])
    expected = [result.metrics["mean_return"][max(0, i - 9) : i + 1].mean() for i in range(30)]
    assert np.allclose(line.get_ydata(), expected)
    (band,) = axes.collections
    heights = np.ptp(band.get_paths()[0].vertices[:, 1])
    assert heights > 2 * np.nanmean(result.metrics["std_return"])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "one iteration", "± one standard deviation of episodes", "mean of 10 iterations"
    ]  # fmt: skip


@given(st.lists(st.lists(st.integers(-9, 9), min_size=1, max_size=4), min_size=1, max_size=8), st.integers(1, 5))
def test_the_spread_is_that_of_all_episodes_of_the_window(iterations, window):
    """Whatever of them each iteration ended: also of such with a single one, which has no deviation of its own."""
    counts = np.array([len(returns) for returns in iterations])
    means = np.array([np.mean(returns) for returns in iterations])
    deviations = np.array([np.std(returns, ddof=1) if len(returns) > 1 else 0.0 for returns in iterations])
    spread = spread_of(means, deviations, counts, min(window, len(iterations)))
    for number in range(len(iterations)):
        seen = [one for returns in iterations[max(0, number + 1 - window) : number + 1] for one in returns]
        assert np.isclose(spread[number], np.std(seen, ddof=1) if len(seen) > 1 else 0.0, atol=1e-6)


def test_a_run_in_which_no_episode_ended_has_no_curve(tmp_path):
    framework.train(
        iterations=2, directory=tmp_path / "run", rollout=RolloutSettings(fixed_steps=2, lanes=1), **without_ends()
    )
    assert not (tmp_path / "run" / "learning_curve.png").exists()


# The folder


def test_an_existing_folder_is_left_alone(here, capsys):
    (here / "runs" / "mine").mkdir(parents=True)
    (here / "runs" / "mine" / "precious.txt").write_text("keep")
    assert main(["run", "--name", "mine"]) == 2
    assert "the run directory runs/mine exists: choose another name, or remove it" in capsys.readouterr().err
    assert [path.name for path in (here / "runs" / "mine").iterdir()] == ["precious.txt"]
    with pytest.raises(UsageError, match="exists"):
        framework.train(directory=here / "runs" / "mine", iterations=1)


def test_a_folder_that_cannot_be_made_is_refused_before_training(here, capsys):
    (here / "runs").write_text("a file where the folder should be")
    for words in ([], ["--name", "mine"]):
        assert main(["run", *words]) == 2
        assert "cannot be made: Not a directory" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../elsewhere", "/elsewhere", "a/../../b", "", ".", ".."])
def test_a_name_is_a_folder_below_runs(here, capsys, name):
    assert main(["run", "--iterations", "1", "--name", name]) == 2
    assert "--name must be a folder below runs/, such as first or sweep/3: " in capsys.readouterr().err


def test_names_may_be_grouped_in_folders(here):
    assert main(["run", "--iterations", "1", "--name", "sweep/3"]) == 0
    assert (here / "runs" / "sweep" / "3" / "metrics.csv").is_file()


def test_unnamed_runs_get_the_next_free_number(here):
    (here / "runs" / "line_world-reinforce-1").mkdir(parents=True)
    assert main(["run", "--iterations", "1"]) == 0
    assert main(["run", "--iterations", "1"]) == 0
    made = {path.name for path in (here / "runs").iterdir()}
    assert made == {f"line_world-reinforce-{number}" for number in (1, 2, 3)}


def test_two_runs_that_start_together_get_folders_of_their_own(tmp_path, monkeypatch):
    """Another run takes the free name between the look and the making."""
    from framework.records import record

    def slower(directory):
        if directory.name == "run-1":
            directory.mkdir()
        return create_run_directory(directory)

    monkeypatch.setattr(record, "create_run_directory", slower)
    assert create_next_run_directory(tmp_path, "run").name == "run-2"


# Records that are not whole


def test_a_record_that_cannot_be_loaded_says_why(tmp_path):
    with pytest.raises(UsageError, match="no run directory"):
        framework.load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no configuration file"):
        framework.load(tmp_path / "empty")
    framework.train(iterations=1, directory=tmp_path / "run")
    policy = tmp_path / "run" / "policy.safetensors"
    whole = policy.read_bytes()
    policy.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match=r"policy.safetensors cannot be read: "):
        framework.load(tmp_path / "run")
    policy.unlink()
    with pytest.raises(UsageError, match=r"has no policy.safetensors: the run did not finish"):
        framework.load(tmp_path / "run")
    (tmp_path / "run" / "config.toml").write_text("seed = \n")
    with pytest.raises(UsageError, match=r"config.toml is not TOML: .*line 1"):
        framework.load(tmp_path / "run")
