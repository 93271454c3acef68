"""Every setting is of the kind that its annotation says, from wherever it comes; what is not is refused in one line."""

import contextlib
import re
import tomllib

import numpy as np
import pytest
from attrs import field, frozen
from foreign import publish
from framework_parts import CartPole, Categorical, Gymnasium, LineWorld

import framework
from framework import Estimate, OptimizerSettings, PartError, RolloutSettings, UpdateSettings, UsageError, hookimpl
from framework.cli import main
from framework.config import DEFAULTS, SECTIONS
from framework.kinds import checked, converted, plain
from framework.setup.layers import merge
from framework.setup.loading import load
from framework.setup.tree import configure, read_toml, to_tree
from framework.setup.wiring import wire

LOADED = load()
HUGE = 2**63


def configured(**sections):
    return configure(LOADED, merge(DEFAULTS, sections))


# One value


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (int, np.int64(3), 3),
        (float, np.float32(0.5), 0.5),
        (float, 1, 1.0),
        (bool, np.bool_(True), True),
        (int | None, "None", None),
        (tuple[int, ...], [1, 2], (1, 2)),
        (tuple[float, float], [0, 0.5], (0.0, 0.5)),
        (dict[str, float], {"a": 1}, {"a": 1.0}),
        (dict, {"a": [1, {"b": (True, "x", "None")}]}, {"a": [1, {"b": (True, "x", None)}]}),
    ],
    ids=str,
)
def test_a_value_is_converted(kind, value, expected):
    import typing

    made = converted(dict[str, typing.Any] if kind is dict else kind, "key", value)
    assert made == expected
    assert type(made) is type(expected)


def itself():
    tree = {}
    tree["again"] = tree
    return tree


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"iterations": True}, "iterations must be an integer: True"),
        ({"iterations": 10.5}, "iterations must be an integer: 10.5"),
        ({"steps": 10.5}, "steps must be an integer: 10.5"),
        ({"steps": 0}, "steps must be >= 1: 0"),
        ({"seed": True}, "seed must be an integer: True"),
        ({"seed": HUGE}, f"seed must fit into 64 bits: {HUGE}"),
        ({"seed": 10**5000}, "seed must fit into 64 bits: a value of type int"),
        ({"device": 3}, "device must be a string: 3"),
        ({"threads": 1025}, "threads must be <= 1024: 1025"),
        ({"threads": 2**31}, "threads must be <= 1024: 2147483648"),
        ({"compile": 1}, "compile must be true or false: 1"),
        ({"rollout": {"lanes": True}}, "rollout.lanes must be an integer: True"),
        ({"update": {"minibatches": HUGE}}, f"update.minibatches must fit into 64 bits: {HUGE}"),
        ({"update": {"constant": float("inf")}}, "update.constant must be finite: inf"),
        ({"update": {"constant": float("nan")}}, "update.constant must be a number, and nan is none: nan"),
        ({"update": {"max_grad_norm": float("nan")}}, "update.max_grad_norm must be a number, and nan is none: nan"),
        ({"update": {"denominator": ["per_step"]}}, "update.denominator must be one of per_step, per_episode, constan"),
        ({"update": {1: 2}}, "update: keys must be strings: 1"),
        ({"update": itself()}, "update: tables must be nested at most 32 deep"),
        (
            {"environment": {"step_reward": float("nan")}},
            "environment.step_reward must be a number, and nan is none",
        ),
        ({"policy": {"hidden": [2.5]}}, "policy.hidden must be a list of integers: [2.5]"),
        ({"policy": {"hidden": [HUGE]}}, f"policy.hidden must fit into 64 bits: [{HUGE}]"),
        ({"estimator": {"name": 3}}, "estimator.name must be a string: 3"),
        ({"reports": [3]}, "reports must be a list of strings: [3]"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_configuration_with_it_is_refused(sections, message):
    with pytest.raises(UsageError) as caught:
        configured(**sections)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("section", SECTIONS)
def test_every_setting_of_a_section_refuses_every_wrong_kind(section):
    import attrs

    for attribute in attrs.fields(SECTIONS[section]):
        for value in (True, float("nan"), HUGE, b"x", object(), [[]], {"a": {}}, "no such word"):
            if attribute.type is bool or (isinstance(value, dict) and attribute.name == "options"):
                continue
            with pytest.raises(UsageError, match=rf"^{section}[.:]? ?({attribute.name})?"):
                configured(**{section: {attribute.name: value}})


def test_keys_are_strings():
    with pytest.raises(UsageError, match="^a configuration: keys must be strings: 1$"):
        configure(LOADED, {**DEFAULTS, 1: 2})


# Objects from Python


@frozen
class Odd:
    """An estimator with settings that no file can hold, which are nobody else's business."""

    weight: object = field(factory=object)
    count: int = 3
    scales: tuple[float, ...] = (1.0,)
    extra: "NotThere" = None  # noqa: F821

    def __call__(self, rollout):
        return Estimate(rollout.rewards, rollout.rewards)


def test_numbers_of_numpy_become_plain_and_other_objects_stay():
    given = LineWorld(goal=np.int64(5), step_reward=np.float32(-1))
    made = checked("environment", given)
    assert (type(made.goal), type(made.step_reward)) == (int, float)
    plain_one = LineWorld(goal=5, step_reward=-1)
    assert checked("environment", plain_one) is plain_one
    odd = Odd()
    assert checked("estimator", odd) is odd


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"environment": LineWorld(goal=2.5)}, "environment.goal must be an integer: 2.5"),
        ({"policy": Categorical(normalize=1)}, "policy.normalize must be true or false: 1"),
        ({"policy": Categorical(hidden=(8.5,))}, "policy.hidden must be a list of integers: (8.5,)"),
        ({"environment": LineWorld(goal=HUGE)}, "environment.goal must fit into 64 bits"),
        ({"rollout": RolloutSettings(fixed_steps=2.5)}, 'rollout.fixed_steps must be an integer or "None": 2.5'),
        ({"update": UpdateSettings(epochs=True)}, "update.epochs must be an integer: True"),
        ({"optimizer": OptimizerSettings(lr=True)}, "optimizer.lr must be a number: True"),
        ({"optimizer": OptimizerSettings(options={"eps": float("inf")})}, "optimizer.options.eps must be finite: inf"),
        ({"optimizer": {"options": {"foreach": float("nan")}}}, "optimizer.options must be a number, and nan is none"),
        ({"optimizer": {"options": {"amsgrad": 1}}}, "optimizer.options.amsgrad must be true or false: 1"),
        ({"optimizer": {"options": {"betas": [0.9]}}}, "optimizer.options.betas must be a list of 2 numbers: [0.9]"),
        ({"optimizer": {"options": {"betas": [2.0, 0.9]}}}, "optimizer: Adam refuses its options: Invalid beta param"),
        ({"optimizer": {"options": {"capturable": True}}}, "optimizer: Adam refuses its options: If capturable=True"),
        ({"optimizer": {"options": {"eps": "small"}}}, "optimizer.options.eps must be a number: 'small'"),
        ({"seed": True}, "seed must be an integer: True"),
        ({"steps": 10.5}, "steps must be an integer: 10.5"),
        ({"device": "meta"}, "device 'meta' cannot be used: "),
        ({"device": "hpu"}, "device 'hpu' cannot be used: "),
        ({"device": "xla"}, "device 'xla' cannot be used: "),
        ({"threads": 10**6}, "threads must be <= 1024: 1000000"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_train_refuses_it(given, message):
    with pytest.raises(UsageError) as caught:
        framework.train(iterations=1, **given)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"episodes": 2.5}, "episodes must be an integer: 2.5"),
        ({"lanes": True}, "lanes must be an integer: True"),
        ({"seed": "1"}, "seed must be an integer: '1'"),
        ({"greedy": 1}, "greedy must be true or false: 1"),
        ({"threads": 0}, "threads must be 1 to 1024: 0"),
        ({"environment": "line_wrold"}, "no environment 'line_wrold'. Did you mean 'line_world'?"),
        ({"environment": {"goal": 5}}, "environment.name must be a string: None"),
        ({"environment": {"name": "line_world", "goal": True}}, "environment.goal must be an integer: True"),
        ({"environment": LineWorld(goal=2.5)}, "environment.goal must be an integer: 2.5"),
        ({"device": "meta"}, "device 'meta' cannot be used: "),
    ],
    ids=str,
)
def test_evaluate_refuses_it(given, message):
    policy = framework.train(iterations=1).policy
    with pytest.raises(UsageError, match=re.escape(message)):
        framework.evaluate(policy, **{"environment": LineWorld(), **given})


def test_evaluate_takes_an_environment_as_train_does():
    policy = framework.train(iterations=1).policy
    ways = (LineWorld(max_steps=7), {"name": "line_world", "max_steps": 7})
    one, other = (framework.evaluate(policy, environment, episodes=5) for environment in ways)
    assert one.returns.tolist() == other.returns.tolist()
    assert len(framework.evaluate(policy, "line_world", episodes=3).returns) == 3


@pytest.mark.parametrize("path", [5, None, b"run"], ids=repr)
def test_a_path_is_one(path):
    with pytest.raises(UsageError, match="^run must be a folder's path, got "):
        framework.load(path)
    if path is not None:
        with pytest.raises(UsageError, match="^directory must be a folder's path, got "):
            framework.train(directory=path)


def test_many_threads_are_many(recwarn):
    """BLAS libraries that take fewer than were asked for have not been changed by a part."""
    assert framework.train(iterations=1, threads=100).config.threads == 100
    assert not recwarn


# What parts declare, offer and measure


@frozen
class Measuring:
    """An extension that measures what it is configured to."""

    what: object = None

    def build(self, run):
        return Measurer(self.what)


class Measurer:
    def __init__(self, what):
        self.what = what

    @hookimpl
    def measure(self):
        return {"it": self.what}


@pytest.mark.parametrize("number", [10**400, "1", None, [1.0]], ids=lambda number: type(number).__name__)
def test_a_measured_number_that_no_float_can_hold_is_the_extensions(number):
    with pytest.raises(PartError, match="^extension 'Measuring' .*: measure: .*expected .* number"):
        framework.train(extensions=[Measuring(number)], iterations=1)


@pytest.mark.parametrize("declared", [5, None, "values", {"values": 1}, [["values"]]], ids=repr)
def test_needs_that_are_no_set_of_words_are_the_parts(declared):
    @frozen
    class Needing(Odd):
        needs = declared

    with pytest.raises(UsageError, match=r"^estimator 'Needing' .*: needs must be a set of words, got"):
        framework.train(estimator=Needing(), iterations=1)


def test_needs_may_come_from_a_generator():
    @frozen
    class Needing(Odd):
        @property
        def needs(self):
            return (word for word in ("values",))

    with pytest.raises(UsageError, match="estimator 'Needing' needs values"):
        framework.train(estimator=Needing(), iterations=1)


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        ("{1: {}}", "recipe 'mine': keys must be strings: 1"),
        ("{'update': {2: 3}}", r"recipe 'mine'.update: keys must be strings: 2"),
        ("HERSELF", "recipe 'mine': tables must be nested at most 32 deep"),
    ],
)
def test_a_recipe_that_no_file_could_hold_is_refused_when_its_plugin_loads(tmp_path, monkeypatch, recipe, reason):
    source = f"""
    from framework import hookimpl
    HERSELF = {{}}
    HERSELF["update"] = HERSELF

    @hookimpl
    def recipes():
        return {{"mine": {recipe}}}
    """
    publish(
        tmp_path, monkeypatch, "acme-rl", {"acme": f"acme_{abs(hash(recipe))}"}, **{f"acme_{abs(hash(recipe))}": source}
    )
    (failure,) = load().failures
    assert re.match(reason, failure.reason)


@pytest.mark.parametrize("name", ["self", "class", "None"])
def test_a_part_cannot_be_named_by_a_word_of_pythons(tmp_path, monkeypatch, name):
    module = f"acme_named_{abs(hash(name))}"
    source = f"""
    from attrs import frozen
    from framework import hookimpl

    @frozen
    class Part:
        pass

    @hookimpl
    def extensions():
        return {{{name!r}: Part}}
    """
    publish(tmp_path, monkeypatch, "acme-rl", {"acme": module}, **{module: source})
    (failure,) = load().failures
    assert failure.reason == f"hook 'extensions': '{name}' has a meaning in Python: choose another name"


# Files


def test_a_byte_order_mark_is_skipped(tmp_path):
    path = tmp_path / "notepad.toml"
    path.write_bytes(b"\xef\xbb\xbf[estimator]\r\ngamma = 0.5\r\n")
    assert read_toml(path) == {"estimator": {"gamma": 0.5}}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("seed = 1".encode("utf-16"), "is not UTF-8 (it looks like UTF-16, as Windows may write it): save it as UTF-8"),
        ("seed = 1".encode("utf-16-le"), "is not UTF-8 (it looks like UTF-16"),
        (b"a = " + b"[" * 5000 + b"]" * 5000, "nested too deep"),
        (b"a = " + b"9" * 5000, "is not TOML: Exceeds the limit"),
    ],
    ids=["UTF-16", "UTF-16 without mark", "nested", "digits"],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path, data, message):
    path = tmp_path / "odd.toml"
    path.write_bytes(data)
    with pytest.raises(UsageError) as caught:
        read_toml(path)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_plugin_file_in_utf_16_names_the_cause_and_one_with_a_mark_works(tmp_path, monkeypatch):
    (tmp_path / "wide.py").write_text("x = 1", "utf-16")
    with pytest.raises(UsageError, match="wide.py is not UTF-8 .*save it as UTF-8"):
        load([str(tmp_path / "wide.py")])
    source = "from framework import hookimpl\n\n@hookimpl\ndef recipes():\n    return {'marked': {}}\n"
    (tmp_path / "marked.py").write_text(source, "utf-8-sig")
    assert load([str(tmp_path / "marked.py")]).names("recipe") == ["marked"]


# Lists and tables there and back

KWARGS = {"desc": ["SF", "FG"], "healthy_z_range": [0.8, 1.0], "nested": {"a": {"b": [1, [2.5, True]]}}, "none": None}


def test_tables_survive_the_way_to_a_file_and_back(tmp_path):
    import tomli_w

    sections = {
        "environment": {"name": "gymnasium", "kwargs": KWARGS},
        "optimizer": {"options": {"betas": (0.9, 0.95), "amsgrad": True, "foreach": None}},
    }
    config = configured(**sections)
    (tmp_path / "it.toml").write_text(tomli_w.dumps(to_tree(config, LOADED)))
    tree = read_toml(tmp_path / "it.toml")
    tree.pop("plugins")
    again = configure(LOADED, tree)
    assert again.environment.settings.kwargs == KWARGS
    assert again.optimizer.options == {"betas": [0.9, 0.95], "amsgrad": True, "foreach": None}


@pytest.mark.slow
def test_kwargs_from_file_flag_and_python_are_the_same(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lake.toml").write_text(
        '[environment]\nname = "gymnasium"\nid = "FrozenLake-v1"\n[environment.kwargs]\ndesc = ["SF", "FG"]\n'
    )
    head = ["show", "--policy", "actor_critic", "--reports"]
    flags = ["--environment", "gymnasium", "--environment.id", "FrozenLake-v1", "--environment.kwargs", "desc"]
    assert main([*head, "--config", "lake.toml"]) == 0
    by_file = capsys.readouterr().out
    assert main([*head, *flags, '["SF", "FG"]']) == 0
    assert capsys.readouterr().out == by_file
    result = framework.train(
        environment=Gymnasium(id="FrozenLake-v1", kwargs={"desc": ("SF", "FG")}),
        policy="actor_critic",
        iterations=1,
        directory=tmp_path / "run",
    )
    assert result.run.environment.observation_space.n == 4
    assert 'desc = [\n    "SF",\n    "FG",\n]' in (tmp_path / "run" / "config.toml").read_text()
    assert main(["run", "--config", "run", "--name", "again", "--quiet"]) == 0


def test_a_value_that_no_file_can_hold_works_unrecorded_and_is_refused_recorded(tmp_path):
    def reward(state):
        return 0.0

    made = configured(environment={"name": "gymnasium", "kwargs": {"f": {"g": reward}}})
    assert made.environment.settings.kwargs["f"]["g"] is reward
    with pytest.raises(UsageError, match=r"environment.kwargs.f.g: <function .* cannot be written to config.toml"):
        to_tree(made, LOADED)


WORDS = {
    "true": True,
    "True": True,
    "3": 3,
    "-.5": -0.5,
    "1e-3": 0.001,
    "-1_0": -10,
    '["a", 1]': ["a", 1],
    "(0.9, 0.95)": [0.9, 0.95],
    "{a = 1}": {"a": 1},
    '{"a": [true, null]}': {"a": [True, "None"]},
    **{word: word for word in ("8x8", "[1", "", "a b", "a = 1", "None", "2020-01-01")},
}


@pytest.mark.slow
@pytest.mark.parametrize("word", WORDS)
def test_a_word_in_a_table_is_read_as_toml_or_stands_for_itself(word, capsys):
    assert main(["show", "--environment", "gymnasium", "--environment.kwargs", "x", word, "y", "1"]) == 0
    table = tomllib.loads(capsys.readouterr().out)["environment"]["kwargs"]
    assert table == {"x": WORDS[word], "y": 1}
    assert type(table["x"]) is type(WORDS[word])


def test_help_shows_tables_that_a_file_gives(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "it.toml").write_text(
        '[environment]\nname = "gymnasium"\nkwargs = {map_name = "None", desc = ["SF", "FG"], nested = {a = 1}}\n'
    )
    with contextlib.suppress(SystemExit):
        main(["run", "--policy", "actor_critic", "--config", "it.toml", "--trust", "--help"])
    shown = re.sub(r"[│\s]+", " ", capsys.readouterr().out)
    assert """(default: map_name None desc '[ "SF", "FG" ]' nested '{ a = 1 }')""" in shown


@pytest.mark.parametrize(
    ("word", "message"),
    [("nan", "must be a number, and nan is none: nan"), ("9223372036854775808", "must fit into 64 bits")],
)
def test_a_number_in_a_table_that_no_setting_takes_is_refused(word, message, capsys):
    with pytest.raises(SystemExit) as exited:
        main(["show", "--environment", "gymnasium", "--environment.kwargs", "x", word])
    assert exited.value.code == 2
    assert message in re.sub(r"[│\s]+", " ", capsys.readouterr().err)


# Hostile values in every flag

VALUES = ["nan", "1" + "0" * 4400, "[1"]


def called(words, capsys):
    """Exit code, and what was said on standard error; an exception other than an exit is a failure of the test."""
    with contextlib.suppress(SystemExit):
        return main(words), capsys.readouterr().err
    return 2, capsys.readouterr().err


@pytest.mark.slow
def test_no_value_of_any_flag_ends_in_a_traceback(capsys, tmp_path, monkeypatch):
    """Of a recipe that has every section, with Gymnasium, a Gaussian policy and four extensions: one `error:` line."""
    monkeypatch.chdir(tmp_path)
    base = ["--recipe", "ppo_continuous", "--extensions", "early_stop,evaluate"]
    with contextlib.suppress(SystemExit):
        main(["show", *base, "--help"])
    flags = set(re.findall(r"--[a-z][a-z.-]*", capsys.readouterr().out)) - {"--help"}
    assert len(flags) > 60
    for flag in sorted(flags):
        for value in VALUES:
            code, said = called(["show", *base, flag, value], capsys)
            assert code in (0, 2), (flag, value)
            assert "Traceback" not in said, (flag, value)
            assert (code == 0) == (not said), (flag, value, said)
            assert not said.startswith("error:") or said.count("\n") == 1, said


@pytest.mark.parametrize("words", ["new policy", "evaluate", "run --config", "run --plugins", "run --name"])
def test_a_name_that_is_too_long_is_said_in_one_line(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, said = called([*words.split(), "x" * 300 + ("" if words == "new policy" else ".py")], capsys)
    assert code == 2
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir()) or words == "run --name"


HOSTILE = ["true", "-1", "nan", "9223372036854775808", "1" + "0" * 4400, '""', "[[[]]]", "{a = {b = 1}}", "2020-01-01"]


def test_no_value_of_any_key_of_a_file_is_anything_but_taken_or_refused_in_one_line(tmp_path):
    recipe = LOADED.offers["recipe"]["ppo"]["recipes"]
    tree = to_tree(configure(LOADED, merge(DEFAULTS, recipe)), LOADED)
    keys = [(key, "") for key in tree]
    keys += [(key, f"[{section}]\n") for section, table in tree.items() if isinstance(table, dict) for key in table]
    assert len(keys) > 50
    refused = []
    for key, head in keys:
        for value in HOSTILE:
            (tmp_path / "it.toml").write_text(f"{head}{key} = {value}\n")
            try:
                layers = merge(DEFAULTS, recipe, read_toml(tmp_path / "it.toml"))
                layers.pop("plugins", None)
                wire(configure(LOADED, layers), LOADED)
            except UsageError as error:
                refused.append(str(error))
    assert len(refused) > 200
    assert [message for message in refused if "\n" in message or len(message) > 1000] == []


def test_plain_keeps_what_it_is_given():
    assert plain(KWARGS) == KWARGS
    assert CartPole().max_steps == 500
