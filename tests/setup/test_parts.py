"""Every built-in part has one class and one name in `framework_parts`; docs/reference/parts.md lists them all."""

from pathlib import Path

import framework_losses
import framework_parts
import framework_reinforce
import framework_returns
import pytest

import framework
from framework.setup.loading import load
from framework.testing.parts_page import parts_page

ROOT = Path(__file__).parents[2]
LOADED = load()
OURS = {plugin.name for plugin in LOADED.plugins if plugin.distribution == "framework-rl"}
CLASSES = [
    pytest.param(cls, id=f"{role}:{name}")
    for role, offered in LOADED.offers.items()
    if role != "recipe"
    for name, owners in offered.items()
    for plugin, cls in owners.items()
    if plugin in OURS
]


@pytest.mark.parametrize("cls", CLASSES)
def test_every_part_can_be_imported_from_framework_parts_under_the_name_of_its_class(cls):
    assert getattr(framework_parts, cls.__name__) is cls


def test_framework_parts_has_nothing_else_and_no_name_twice():
    names = [parameter.values[0].__name__ for parameter in CLASSES]
    assert sorted(names) == sorted(framework_parts.__all__)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        (framework_losses, "Ppo", "PPO"),
        (framework_losses, "ActorCritic", "ActorCriticLoss"),
        (framework_returns, "Gae", "GAE"),
        (framework_reinforce, "Reinforce", "REINFORCE"),
    ],
)
def test_names_before_are_still_the_same_classes(module, old, new):
    assert getattr(module, old) is getattr(module, new) is getattr(framework_parts, new)


def test_the_page_is_made_from_the_parts():
    page = (ROOT / "docs" / "reference" / "parts.md").read_text("utf-8")
    assert page == parts_page(), "run: python -m framework.testing.parts_page docs/reference/parts.md"


def test_parts_of_framework_parts_are_recorded_by_their_names_on_the_command_line():
    settings = framework.RolloutSettings(lanes=2, fixed_steps=4)
    result = framework.train(
        environment=framework_parts.CartPole(),
        policy=framework_parts.ActorCritic(),
        estimator=framework_parts.GAE(),
        baseline=framework_parts.Value(),
        loss=framework_parts.PPO(),
        rollout=settings,
        iterations=1,
    )
    assert [part.name for part in result.config.parts[:5]] == ["cartpole", "actor_critic", "gae", "value", "ppo"]
