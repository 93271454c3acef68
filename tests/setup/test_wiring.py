"""What parts need, give and imply: read from the settings instance, refused before the first step."""

import pytest
from attrs import frozen
from foreign import publish
from framework_reinforce import Reinforce

import framework
from framework import Estimate, RolloutSettings, UsageError
from framework.config import DEFAULTS
from framework.setup.layers import merge
from framework.setup.loading import load
from framework.setup.tree import configure
from framework.setup.wiring import chosen_roles, needed, wire

PLUGIN = """
    from attrs import frozen
    from framework import Estimate, hookimpl
    from framework_reinforce import Categorical, NoBaseline, Reinforce

    @frozen
    class Bootstrapping:
        "Needs a critic."
        needs = frozenset({"values"})

        def __call__(self, rollout):
            return Estimate(rollout.rewards + rollout.successor_values, rollout.rewards)

    @frozen
    class Gae(Bootstrapping):
        "Implies a baseline."
        implies = {"baseline": "value"}

    @frozen
    class Sometimes:
        "Needs a critic where it looks ahead."
        steps: int = 0  # to look ahead

        @property
        def needs(self):
            return frozenset({"values"} if self.steps else ())

        def __call__(self, rollout):
            return Estimate(rollout.rewards, rollout.rewards)

    @frozen
    class Value(NoBaseline):
        "Needs a critic."
        needs = frozenset({"values"})

    @frozen
    class ActorCritic(Categorical):
        "Gives values."
        gives = frozenset({"values"})

    @frozen
    class GroupMean(NoBaseline):
        "Needs groups."
        needs = frozenset({"groups"})

    @hookimpl
    def estimators():
        return {"bootstrapping": Bootstrapping, "gae": Gae, "sometimes": Sometimes}

    @hookimpl
    def baselines():
        return {"value": Value, "group_mean": GroupMean}

    @frozen
    class Critical(Reinforce):
        "Trains a critic."
        needs = frozenset({"values"})

    @hookimpl
    def losses():
        return {"critical": Critical}

    @hookimpl
    def policies():
        return {"actor_critic": ActorCritic}
"""


@pytest.fixture
def wired(tmp_path, monkeypatch):
    publish(tmp_path, monkeypatch, "critics-rl", {"critics": "critics_module"}, critics_module=PLUGIN)
    loaded = load(["critics", "line_world", "reinforce", "reports", "standardize"])

    def wired(**named):
        tree = {role: {"name": part} if isinstance(part, str) else part for role, part in named.items()}
        return wire(configure(loaded, merge(DEFAULTS, tree)), loaded, chosen_roles(tree))

    return wired


def refusal(wired, **named):
    with pytest.raises(UsageError) as caught:
        wired(**named)
    return str(caught.value)


def test_a_need_that_nobody_gives_is_refused_with_reason_and_mend(wired):
    assert refusal(wired, estimator="bootstrapping") == (
        "estimator 'bootstrapping' needs values, and policy 'categorical' gives none: choose a policy that gives them "
        "(actor_critic) or an estimator that needs none (rewards_to_go, sometimes, total_return)"
    )
    assert refusal(wired, baseline="group_mean") == (
        "baseline 'group_mean' needs groups, and environment 'line_world' gives none: choose an environment that "
        "gives them (none does with its default settings) or a baseline that needs none "
        "(batch_mean, leave_one_out, none, value)"
    )
    assert refusal(wired, rollout={"fixed_steps": 16}) == (
        "estimator 'rewards_to_go' needs complete episodes, and rollout.fixed_steps cuts them: "
        "use rollout.steps or rollout.episodes or an estimator that needs none (bootstrapping, gae, sometimes)"
    )


def test_a_need_that_somebody_gives_is_wired(wired):
    config = wired(estimator="bootstrapping", policy="actor_critic", loss="critical", rollout={"fixed_steps": 16})
    assert needed(config) >= {"values"}
    assert "complete_episodes" not in needed(config)


def test_a_critic_that_nothing_trains_is_refused(wired):
    assert refusal(wired, estimator="bootstrapping", policy="actor_critic") == (
        "estimator 'bootstrapping' bootstraps from the critic, and loss 'reinforce' trains none: choose a loss that "
        "does (critical) or an estimator that needs none (rewards_to_go, sometimes, total_return)"
    )
    assert wired(baseline="value", policy="actor_critic").loss.name == "reinforce"  # as a baseline it does no harm


def test_needs_are_read_from_the_instance(wired):
    assert "values" not in needed(wired(estimator="sometimes"))
    assert refusal(wired, estimator={"name": "sometimes", "steps": 2}).startswith("estimator 'sometimes' needs values")


def test_what_is_implied_is_taken_where_nothing_is_chosen(wired):
    assert wired(estimator="gae", policy="actor_critic", loss="critical").baseline.name == "value"
    assert wired(estimator="gae", policy="actor_critic", loss="critical", baseline="value").baseline.name == "value"


def test_what_contradicts_the_implied_is_refused(wired):
    assert refusal(wired, estimator="gae", policy="actor_critic", baseline="batch_mean") == (
        "estimator 'gae' (plugin critics) implies baseline 'value', and baseline 'batch_mean' is chosen: "
        "leave baseline out, or choose another estimator"
    )


def test_what_is_implied_may_need_something_in_turn(wired):
    assert refusal(wired, estimator="gae").startswith("estimator 'gae' needs values, and policy 'categorical'")


def test_parts_that_imply_different_ones_are_refused():
    """Nothing is chosen, and neither wins silently; what is implied may imply in turn."""
    batch_mean, none = ({"baseline": name} for name in ("batch_mean", "leave_one_out"))
    with pytest.raises(UsageError) as caught:
        framework.train(estimator=own(implies=batch_mean), loss=own_loss(implies=none), iterations=1)
    assert str(caught.value) == (
        "loss 'OwnLoss' (plugin test_wiring) implies baseline 'leave_one_out', and estimator 'Own' "
        "(plugin test_wiring) implies 'batch_mean': choose another loss or estimator"
    )
    agreed = framework.train(estimator=own(implies=none), loss=own_loss(implies=none), iterations=1)
    assert agreed.config.baseline.name == "leave_one_out"
    qualified = {"baseline": "reinforce:none"}
    assert framework.train(estimator=own(implies=qualified), iterations=1).config.baseline.name == "none"


def own_loss(**attributes):
    return frozen(type("OwnLoss", (Reinforce,), {**attributes, "__doc__": "Of this test."}))()


def own(**attributes):
    def call(self, rollout):
        return Estimate(rollout.rewards, rollout.rewards)

    return frozen(type("Own", (), {**attributes, "__call__": call, "__doc__": "Of this test."}))()


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"needs": frozenset({"critic"})}, r"no word for needs 'critic'\. There is: complete_episodes, directory, "),
        ({"needs": frozenset({"value"})}, r"no word for needs 'value'\. Did you mean 'values'\?"),
        ({"needs": "values"}, "needs must be a set of words, got 'values'"),
        ({"gives": {"entropies"}}, r"no word for gives 'entropies'\. There is: groups, values"),
        ({"claims": {"unbiased"}}, r"no word for claims 'unbiased'\."),
        ({"implies": {"bseline": "none"}}, "implies a part for 'bseline', which is no role"),
        ({"implies": {"baseline": "nine"}}, r"no baseline 'nine'\. Did you mean 'none'\?"),
        ({"implies": {"baseline"}}, "estimator 'Own' .*: implies must be a dict from role to name, got {'baseline'}"),
        (
            {"needs": property(lambda self: 1 / 0)},
            "estimator 'Own' .*: needs raised ZeroDivisionError: division by zero",
        ),
    ],
)
def test_the_words_are_a_closed_list(attributes, message):
    with pytest.raises(UsageError, match=message):
        framework.train(estimator=own(**attributes), iterations=1)


def test_a_refusal_comes_before_the_first_step():
    """Nothing is built either: an environment that cannot even be built is not reached."""

    @frozen
    class Unbuildable:
        def build(self, num_envs, device):
            raise AssertionError("built")

    with pytest.raises(UsageError, match="needs values"):
        framework.train(environment=Unbuildable(), estimator=own(needs={"values"}), iterations=1)


@pytest.mark.parametrize("lists", [{"names": ["standardize"] * 2}, {"names": ["plot"]}], ids=["one list", "both lists"])
def test_an_extension_is_chosen_once(wired, lists):
    assert "is chosen twice, in extensions or reports: leave one of them out" in refusal(wired, extensions=lists)


def test_objects_are_wired_like_names():
    with pytest.raises(UsageError, match="estimator 'rewards_to_go' needs complete episodes, and rollout.fixed_steps"):
        framework.train(rollout=RolloutSettings(fixed_steps=4), iterations=1)
