"""What a run is called, and what is said of it: the environment's title, one window of episodes, masked actions."""

import json
import math

import pytest
import torch
from attrs import evolve, frozen
from framework_classic import CartPole
from framework_gymnasium import Gymnasium
from framework_line_world import LineWorld
from framework_reports.plot import learning_curve
from framework_reports.progress import ProgressBar
from gymnasium.spaces import Discrete

import framework
from framework import RolloutSettings, Step
from framework.cli import main
from framework.cli.run import _as_folder, action_probabilities
from framework.errors import UsageError
from framework.parts import Part

POLE = ("--environment", "gymnasium", "--environment.id", "CartPole-v1")
SHORT = ("--recipe", "ppo", "--iterations", "1", "--rollout.fixed-steps", "32")


def part(settings, name="world"):
    return Part("environment", name, "mine", settings)


# Titles


@pytest.mark.parametrize(
    ("id", "title", "folder"),
    [
        ("CartPole-v1", "CartPole-v1", "CartPole-v1"),
        ("ALE/Pong-v5", "ALE/Pong-v5", "ALE-Pong-v5"),
        ("my_module:MyWorld-v0", "MyWorld-v0", "MyWorld-v0"),
        ("my_module:maze/Large-v3", "maze/Large-v3", "maze-Large-v3"),
        ("my_module:make", "my_module:make", "my_module-make"),
        ("a.b:World", "a.b:World", "a.b-World"),
    ],
)
def test_gymnasium_s_environments_are_called_by_their_ids(id, title, folder):
    assert part(Gymnasium(id), "gymnasium").title == title
    assert _as_folder(title) == folder


@pytest.mark.parametrize("title", ["../../etc", "a/../b", "C:\\x", "...", "", " x ", "-", "a\nb", "nul\0"])
def test_a_title_makes_one_folder_below_runs(title):
    folder = _as_folder(title)
    assert folder
    assert not set(folder) & set('/\\:\0\n "')
    assert folder.strip(".-") == folder


def test_a_part_without_a_title_is_called_by_its_name():
    @frozen
    class Untitled:
        title: int = 3

    assert part(LineWorld()).title == part(Untitled()).title == "world"


def test_a_title_that_raises_names_the_part():
    class Broken:
        @property
        def title(self):
            raise KeyError("size")

    with pytest.raises(UsageError, match=r"environment 'world' \(plugin mine\): title raised KeyError: 'size'"):
        _ = part(Broken()).title


def test_folder_summary_plot_and_evaluation_say_the_id(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["run", *POLE, *SHORT]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["record"].replace("\\", "/") == "runs/CartPole-v1-ppo-1"
    assert summary["environment"] == "CartPole-v1"
    assert main(["evaluate", summary["record"], "--episodes", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["environment"] == "CartPole-v1"


def test_the_plot_s_title_says_the_id():
    settings = RolloutSettings(lanes=2, episodes=2)
    result = framework.train(environment=Gymnasium("CartPole-v1"), rollout=settings, iterations=1)
    title = learning_curve(result.run, 10).axes[0].get_title()
    assert title.startswith("CartPole-v1 · categorical · ")


# One window


def test_return_and_length_are_of_the_same_episodes():
    """CartPole pays 1 a step: of the same episodes, return and length are equal, number by number."""
    result = framework.train(environment=CartPole(), rollout=RolloutSettings(lanes=8, episodes=50), iterations=3)
    assert len(result.recent_returns) == len(result.recent_lengths) == 100
    assert result.recent_returns.tolist() == result.recent_lengths.tolist()


def test_the_bar_goes_on_showing_the_length_when_no_episode_ends_in_an_iteration(monkeypatch):
    """Five steps of CartPole end no episode; the mean of the last ones that ended stays."""
    shown = []

    class Seen:
        def is_due(self, count):
            return True

        def show(self, count, **fields):
            shown.append(fields["text"])

    result = framework.train(environment=CartPole(), rollout=RolloutSettings(lanes=2, episodes=2), iterations=1)
    bar, run = ProgressBar(), result.run
    bar.bar = Seen()
    bar.iteration_finished(run, {"mean_length": math.nan, "seconds": 1.0})
    mean = sum(run.recent_lengths) / len(run.recent_lengths)
    assert shown[0].startswith(f"return {mean:.2f}  length {mean:.1f}  ")


def test_the_summary_s_mean_length_is_of_the_episodes_of_its_mean_return(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--environment", "cartpole", *SHORT, "--iterations", "20", "--reports"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["mean_length"] == summary["mean_return"]


# The table of probabilities


@frozen
class Forbidding:
    """Three states in turn; in state s action s is forbidden. With `moody`, another one at each visit."""

    moody: bool = False
    unseen: int = 0  # states that are never shown

    def build(self, num_envs, device):
        return ForbiddingLanes(num_envs, self.moody, 3 + self.unseen)


class ForbiddingLanes:
    def __init__(self, count, moody, states):
        self.count, self.moody = count, moody
        self.observation_space, self.action_space = Discrete(states), Discrete(3)
        self.time, self.action_masks = 0, None
        self.stand_at(0)

    def stand_at(self, time):
        self.time = time
        self.action_masks = torch.ones(self.count, 3, dtype=torch.bool)
        self.action_masks[:, (time // 3 if self.moody else time) % 3] = False
        return torch.full((self.count,), time % 3)

    def reset(self, generator):
        return self.stand_at(0)

    def step(self, actions, generator):
        assert bool(self.action_masks.gather(1, actions[:, None]).all())
        seen = self.stand_at((self.time + 1) % 9)
        over = torch.full((self.count,), self.time == 0)
        step = Step(seen, seen, torch.ones(self.count), over, torch.zeros_like(over))
        return evolve(step, action_masks=self.action_masks)


def test_the_table_gives_forbidden_actions_no_probability():
    result = framework.train(environment=Forbidding(), iterations=1)
    states, table = action_probabilities(result)
    rows = torch.tensor([table[name] for name in table]).T
    assert states == [0, 1, 2]
    assert torch.equal(rows == 0, torch.eye(3, dtype=torch.bool))
    assert torch.allclose(rows.sum(1), torch.ones(3))


def test_states_whose_mask_is_not_known_are_left_out_of_the_table():
    states, table = action_probabilities(framework.train(environment=Forbidding(unseen=2), iterations=1))
    assert states == [0, 1, 2]
    assert {len(column) for column in table.values()} == {3}
    assert action_probabilities(framework.train(environment=Forbidding(moody=True), iterations=1)) == ([], {})
