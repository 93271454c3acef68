"""Settings from every source: layers, types, TOML and back, and the words of each refusal."""

import pytest
from foreign import ESTIMATOR, publish
from hypothesis import given
from hypothesis import strategies as st

from framework import OptimizerSettings, RolloutSettings, UpdateSettings, UsageError
from framework.config import DEFAULTS, PART_ROLES
from framework.setup.layers import COLLECT, merge
from framework.setup.loading import load
from framework.setup.tree import configure, read_toml, to_tree

LOADED = load()


def configured(**sections):
    return configure(LOADED, merge(DEFAULTS, sections))


def written_and_read(config, folder):
    import tomli_w

    path = folder / "config.toml"
    path.write_text(tomli_w.dumps(to_tree(config, LOADED)))
    tree = read_toml(path)
    tree.pop("plugins")
    return configure(LOADED, tree)


# Layers


KEYS = st.sampled_from(["gamma", "lam", "x"])
LAYERS = st.fixed_dictionaries(
    {},
    optional={
        "estimator": st.one_of(
            st.dictionaries(KEYS, st.integers()),
            st.fixed_dictionaries({"name": st.sampled_from(["a", "b"])}, optional={"lam": st.integers()}),
        ),
        "update": st.dictionaries(KEYS, st.integers()),
        "seed": st.integers(),
    },
)


@given(LAYERS)
def test_merging_with_nothing_changes_nothing(layer):
    assert merge(layer) == merge(layer, {}) == merge({}, layer) == merge(layer, layer) == layer


@given(LAYERS, LAYERS)
def test_the_later_layer_wins_and_a_different_part_starts_afresh(below, above):
    merged = merge(below, above)
    for key in {*below, *above}:
        if key not in above:
            assert merged[key] == below[key]
        elif key == "seed":
            assert merged[key] == above[key]
        else:
            lower = below.get(key, {})
            if key == "estimator" and "name" in above[key] and above[key]["name"] != lower.get("name"):
                lower = {}
            assert merged[key] == {**lower, **above[key]}


@given(LAYERS, LAYERS, LAYERS)
def test_merging_is_associative_and_mutates_nothing(a, b, c):
    import copy

    before = copy.deepcopy((a, b, c))
    assert merge(merge(a, b), c) == merge(a, b, c)
    assert (a, b, c) == before


def test_one_way_to_collect_drops_the_lower_layers_others():
    for name in COLLECT:
        for other in COLLECT:
            merged = merge({"rollout": {name: 5, "lanes": 3}}, {"rollout": {other: 7}})
            assert merged == {"rollout": {"lanes": 3, other: 7}}


def test_settings_of_several_extensions_merge_each_on_its_own():
    below = {"extensions": {"names": ["a"], "a": {"x": 1, "y": 2}, "b": {"z": 3}}}
    assert merge(below, {"extensions": {"a": {"x": 9}}}) == {
        "extensions": {"names": ["a"], "a": {"x": 9, "y": 2}, "b": {"z": 3}}
    }


# There and back


def test_the_default_configuration_survives_toml(tmp_path):
    config = configured()
    assert to_tree(written_and_read(config, tmp_path), LOADED) == {**to_tree(config, LOADED)}


VALUES = st.fixed_dictionaries(
    {
        "environment": st.fixed_dictionaries({"goal": st.integers(1, 9), "step_reward": st.floats(-9, 9)}),
        "policy": st.fixed_dictionaries({"hidden": st.lists(st.integers(1, 9), max_size=3)}),
        "estimator": st.fixed_dictionaries({"gamma": st.one_of(st.sampled_from([0, 1]), st.floats(0, 1))}),
        "rollout": st.sampled_from([{"steps": 5}, {"episodes": 3}, {"fixed_steps": 2, "lanes": 4, "shards": 2}]),
        "update": st.fixed_dictionaries(
            {"max_grad_norm": st.sampled_from([0.5, "None"]), "denominator": st.sampled_from(["per_step", "constant"])}
        ),
        "optimizer": st.sampled_from([{"name": "SGD", "options": {"momentum": 0.9}}, {"lr": 0}]),
        "extensions": st.sampled_from([{"names": []}, {"names": ["standardize"], "standardize": {"center": False}}]),
        "seed": st.integers(0, 2**63 - 1),
    }
)


@given(VALUES)
def test_every_configuration_survives_toml(tmp_path_factory, sections):
    config = configured(**sections)
    again = written_and_read(config, tmp_path_factory.mktemp("toml"))
    for role in PART_ROLES:
        assert getattr(again, role).settings == getattr(config, role).settings
    for key in ("rollout", "update", "optimizer", "seed"):
        assert getattr(again, key) == getattr(config, key)
    assert [part.settings for part in again.extensions] == [part.settings for part in config.extensions]


def test_none_that_is_not_the_default_is_written_as_a_word(tmp_path, monkeypatch):
    source = ESTIMATOR.replace(
        "factor: float = field(default=0.5, validator=validators.gt(0))", "factor: float | None = 0.5"
    )
    publish(tmp_path, monkeypatch, "acme-rl", {"acme": "acme_none"}, acme_none=source)
    loaded = load()
    config = configure(loaded, merge(DEFAULTS, {"estimator": {"name": "halved", "factor": "None"}}))
    assert config.estimator.settings.factor is None
    assert to_tree(config, loaded)["estimator"] == {"name": "halved", "factor": "None"}
    tree = to_tree(config, loaded)
    tree.pop("plugins")
    assert configure(loaded, tree).estimator.settings.factor is None


# Refusals, word for word


REFUSED = [
    ({"estimator": {"gamma": 1.5}}, "estimator.gamma must be <= 1.0: 1.5"),
    ({"estimator": {"gamma": -0.1}}, "estimator.gamma must be >= 0.0: -0.1"),
    ({"estimator": {"gamma": "high"}}, "estimator.gamma must be a number: 'high'"),
    ({"estimator": {"gamma": True}}, "estimator.gamma must be a number: True"),
    (
        {"estimator": {"gama": 0.5}},
        "no setting of estimator 'gama'. Did you mean 'gamma'? There is: discounted_objective, gamma",
    ),
    (
        {"estimator": {"name": "gea"}},
        "no estimator 'gea'. Did you mean 'gae'? There is: gae, lambda_returns, ",
    ),
    ({"estimator": {"name": 3}}, "estimator.name must be a string: 3"),
    (
        {"estimator": "rewards_to_go"},
        "estimator must be a table, [estimator], and its name = 'rewards_to_go', got 'rewards_to_go'",
    ),
    ({"environment": {"goal": 1.5}}, "environment.goal must be an integer: 1.5"),
    ({"environment": {"goal": True}}, "environment.goal must be an integer: True"),
    ({"environment": {"goal": 0}}, "environment.goal must be >= 1: 0"),
    ({"policy": {"hidden": 32}}, "policy.hidden must be a list of integers: 32"),
    ({"policy": {"hidden": [0]}}, "policy.hidden must be >= 1: 0"),
    ({"policy": {"activation": "rely"}}, "policy.activation must be one of relu, tanh, gelu, silu: 'rely'"),
    ({"update": {"max_grad_norm": "no"}}, "update.max_grad_norm must be a number or \"None\": 'no'"),
    ({"optimizer": {"options": 3}}, "optimizer.options must be a table: 3"),
    ({"sed": 1}, "no section or key 'sed'. Did you mean 'seed'? There is: "),
    ({"seed": -1}, "seed must be >= 0: -1"),
    ({"iterations": 0}, "iterations must be >= 1: 0"),
    ({"iterations": "9"}, "iterations must be an integer: '9'"),
    ({"threads": 0}, "threads must be >= 1: 0"),
    ({"rollout": {"lanes": 0}}, "rollout.lanes must be >= 1: 0"),
    (
        {"rollout": {"steps": 9, "episodes": 3}},
        "rollout.episodes cannot be given together with 'steps': choose one way to collect",
    ),
    ({"rollout": {"lanes": 8, "shards": 3}}, "rollout.lanes must be a multiple of shards: 8 lanes, 3 shards"),
    (
        {"rollout": {"lanes": 4, "shards": 4, "episodes": 2}},
        "rollout.episodes must be at least shards: 2 episodes, 4 shards",
    ),
    ({"update": {"constant": 0}}, "update.constant must be > 0: 0"),
    ({"optimizer": {"name": "Adm"}}, "optimizer: no optimizer 'Adm'. Did you mean 'Adam'? There is: "),
    ({"extensions": {"names": ["standardise"]}}, "no extension 'standardise'. Did you mean 'standardize'? There is: "),
    (
        {"extensions": {"names": ["standardize"], "standardize": 3}},
        "extensions.standardize must be a table, [extensions",
    ),
    ({"extensions": {"names": "standardize"}}, "extensions.names must be a list of strings: 'standardize'"),
    (
        {"extensions": {"standardize": {"center": True}}},
        "extensions.standardize is set, but extension 'standardize' is not chosen: "
        "add it to extensions, which are: progress, record, plot",
    ),
]


@pytest.mark.parametrize(("sections", "message"), REFUSED, ids=[message[:40] for _, message in REFUSED])
def test_it_is_refused(sections, message):
    with pytest.raises(UsageError) as caught:
        configured(**sections)
    assert str(caught.value).startswith(message)


def test_a_refusal_names_the_file_that_it_comes_from():
    with pytest.raises(UsageError, match="^my.toml: estimator.gamma must be <= 1.0: 1.5$"):
        configure(LOADED, merge(DEFAULTS, {"estimator": {"gamma": 1.5}}), "my.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"seed = 1\nestimator = {gamma 3}\n", "is not TOML: .*at line 2, column 20"),
        (b"seed = \xff\n", "is not TOML: .*codec can't decode"),
        (None, "no configuration file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_line(tmp_path, text, message):
    path = tmp_path / "my.toml"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(UsageError, match=message) as caught:
        read_toml(path)
    assert str(path) in str(caught.value)
    with pytest.raises(UsageError, match="cannot read .*: Is a directory"):
        read_toml(tmp_path)


def test_settings_made_in_python_are_validated_too():
    for make in (
        lambda: RolloutSettings(lanes=0),
        lambda: RolloutSettings(steps=1, fixed_steps=1),
        lambda: UpdateSettings(denominator="per_lane"),
        lambda: OptimizerSettings(name="Adm"),
    ):
        with pytest.raises(ValueError, match=r"must be|cannot be|must be in|no optimizer"):
            make()
