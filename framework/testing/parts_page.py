"""docs/reference/parts.md, generated from the built-in plugins: `python -m framework.testing.parts_page FILE`."""

import inspect
import sys
from pathlib import Path
from typing import Any

import attrs

from ..hookspecs import ROLES
from ..setup.loading import load

HEAD = """# The parts that come with the framework

Of each part: its name on the command line and in files, its class in Python, what it is, and its settings with their
defaults. On the command line a setting is a flag, `--ROLE.SETTING VALUE` (of an extension
`--extensions.NAME.SETTING VALUE`); in Python it is an argument of the class. All classes come from one module:

```python
import framework
from framework_parts import GAE, PPO, ActorCritic, CartPole, Standardize, Value

framework.train(
    environment=CartPole(),
    policy=ActorCritic(hidden=(64, 64)),
    estimator=GAE(lam=0.95),
    baseline=Value(),
    loss=PPO(clip=0.1),
    extensions=[Standardize()],
    rollout=framework.RolloutSettings(fixed_steps=64),
    iterations=2,
)
```

`framework run --ROLE NAME --help` says what each setting means. This page is made from the parts themselves.
"""

RECIPES = """## Recipes: `--recipe NAME`

A recipe names parts and settings, which flags, a file or arguments then change. In Python:
`framework.train(recipe="NAME")`. `framework show --recipe NAME` prints the whole configuration.

| name | what it is |
|---|---|"""
DESCRIPTIONS = {
    "a2c": "advantage actor-critic: n-step returns, a critic, one update after each short rollout",
    "grpo": "group-relative policy optimisation: episodes from one start are compared with each other",
    "ppo": "proximal policy optimisation for discrete actions: GAE, clipped ratios, several epochs of minibatches",
    "ppo_continuous": "the same for Box actions: normalised observations, scaled rewards, a falling learning rate",
    "reinforce": "the default parts: rewards-to-go, no baseline, the REINFORCE loss",
    "rloo": "REINFORCE leave-one-out: whole episodes, each compared with the mean of the others",
}


def parts_page() -> str:
    """The page, as Markdown."""
    loaded = load()
    ours = {plugin.name for plugin in loaded.plugins if plugin.distribution == "framework-rl"}
    sections = [HEAD]
    for role in ROLES:
        rows = [
            f"| `{name}` | `{cls.__name__}` | {_cell(_first(cls))} | {_settings(cls)} |"
            for name in loaded.names(role)
            for plugin, cls in loaded.offers[role][name].items()
            if plugin in ours
        ]
        title = f"## {role.capitalize()}: `--{'extensions' if role == 'extension' else role} NAME`"
        head = "| name | class | what it is | settings |\n|---|---|---|---|"
        sections.append("\n".join([title, "", head, *rows, ""]))
    named = [name for name in loaded.names("recipe") if ours & loaded.offers["recipe"][name].keys()]
    sections.append("\n".join([RECIPES, *(f"| `{name}` | {DESCRIPTIONS[name]} |" for name in named), ""]))
    return "\n".join(sections)


def _first(cls: type[Any]) -> str:
    """The first sentence or line of a class's description."""
    return " ".join(inspect.cleandoc(cls.__doc__ or "").partition("\n\n")[0].split())


def _settings(cls: type[Any]) -> str:
    settings = cls()
    defaults = [f"`{field.name}` {_value(getattr(settings, field.name))}" for field in attrs.fields(cls)]
    return ", ".join(defaults) or "none"


def _value(value: Any) -> str:
    if isinstance(value, tuple | list):
        return " ".join(map(str, value)) or "(none)"
    return _cell(str(value)) if value != {} else "(none)"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(parts_page(), "utf-8")
