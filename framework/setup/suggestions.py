"""What to type instead: names that other libraries use, ids of Gymnasium, and policies for a space of actions."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import attrs

from ..errors import UsageError

if TYPE_CHECKING:
    from gymnasium import Space

    from ..parts import Loaded, Part

INSTEAD: dict[str, tuple[str, ...]] = {
    "--steps N": ("total_timesteps", "timesteps", "total_steps", "num_timesteps", "n_timesteps", "num_env_steps"),
    "--iterations N": ("num_iterations", "n_iterations", "num_updates", "training_iterations", "stop_iters"),
    "--name NAME": ("exp_name", "run_name", "log_dir", "logdir", "save_dir", "output_dir", "tensorboard_log"),
    "--recipe NAME": ("algo", "algorithm"),
    "--device cuda": ("cuda", "gpu", "use_cuda"),
    "--environment gymnasium --environment.id ID": ("env", "env_id", "env_name", "gym_id"),
    "--policy.hidden N N": ("net_arch", "hidden_sizes", "hidden_size", "fcnet_hiddens"),
    "--policy.activation NAME": ("activation_fn", "fcnet_activation"),
    "--policy.orthogonal": ("ortho_init", "orthogonal_init"),
    "--policy.normalize": ("norm_obs", "normalize_obs", "normalize_observations"),
    "--estimator.gamma X": ("gamma", "discount", "discount_factor"),
    "--estimator.lam X": ("gae_lambda", "lam", "lambda", "lambda_"),
    "--loss.clip X": ("clip_range", "clip_coef", "clip_ratio", "clip_param", "clip_eps"),
    "--loss.entropy X": ("ent_coef", "entropy_coef", "entropy_coeff"),
    "--loss.value X": ("vf_coef", "vf_loss_coeff", "value_coef"),
    "--loss.value-clip X": ("clip_range_vf", "clip_vloss", "vf_clip_param"),
    "--loss.target-kl X": ("target_kl", "kl_target"),
    "--rollout.lanes N": ("n_envs", "num_envs", "nenvs", "num_workers", "num_env_runners", "lanes"),
    "--rollout.fixed-steps N": ("n_steps", "num_steps", "horizon", "rollout_length", "rollout_fragment_length"),
    "--update.epochs N": ("n_epochs", "num_epochs", "update_epochs", "epochs", "num_sgd_iter", "train_iters"),
    "--update.minibatches N": ("num_minibatches", "n_minibatches", "minibatches"),
    "--update.minibatches N, how many there are": (
        *("batch_size", "minibatch_size", "mini_batch_size", "sgd_minibatch_size"),
    ),
    "--update.max-grad-norm X": ("max_grad_norm", "grad_clip", "clip_grad_norm"),
    "--optimizer.lr X": ("lr", "learning_rate"),
    "--optimizer.schedule linear": ("anneal_lr", "lr_schedule"),
    "--extensions standardize": ("norm_adv", "normalize_advantage", "normalize_advantages"),
    "--extensions NAME": ("callback", "callbacks"),
    "--extensions evaluate --extensions.evaluate.every N": ("eval_freq", "evaluation_interval", "eval_interval"),
    "--extensions evaluate --extensions.evaluate.episodes N": ("n_eval_episodes", "eval_episodes"),
    "--quiet": ("verbose", "verbosity"),
}
"""From flags here to what Stable-Baselines3, CleanRL, RLlib and others call them."""

_FLAGS = {foreign: flag for flag, names in INSTEAD.items() for foreign in names}


def flag_for(name: str) -> str | None:
    """The flag here of what other libraries call `name`, for an error message; None: not known.

    >>> flag_for("total_timesteps"), flag_for("num-envs"), flag_for("seed")
    ('--steps N', '--rollout.lanes N', None)
    """
    return _FLAGS.get(name.lower().replace("-", "_"))


def refuse_foreign(words: Sequence[str], known: Collection[str]) -> None:
    """Refuse a flag of another library's with the one that it has here; `known`: the flags of this command's own."""
    for word in words:
        name = word.partition("=")[0].removeprefix("--")
        flag = flag_for(name)
        if word.startswith("--") and flag is not None and name.replace("-", "_") not in known:
            raise UsageError(f"no option --{name}: here it is {flag}")


def refuse_key(key: str) -> None:
    """Refuse a key of a file, or an argument in Python, that is another library's, with the one that it has here.

    >>> refuse_key("learning_rate")
    Traceback (most recent call last):
    framework.errors.UsageError: no section or key 'learning_rate': here it is optimizer.lr (on the command line, ...)
    """
    flag = flag_for(key)
    if flag is not None:
        raise UsageError(f"no section or key '{key}': here it is {_dotted(flag)} (on the command line, {flag})")


def _dotted(flag: str) -> str:
    """`--optimizer.lr X` → `optimizer.lr`."""
    return flag.rpartition("--")[2].partition(" ")[0].replace("-", "_")


def setting_hint(role: str, key: str, loaded: Loaded) -> str:
    """What to say of a setting that the chosen part of a role does not have: its name here, or the parts that have it.

    >>> from framework.setup.loading import load
    >>> setting_hint("environment", "id", load())
    "\\nEnvironment 'gymnasium' has 'id': choose that part, too (--environment gymnasium)"
    >>> setting_hint("loss", "clip_range", load()), setting_hint("loss", "nothing", load())
    ("\\n'clip_range' of other libraries is loss.clip here (on the command line, --loss.clip X)", '')
    """
    offers = loaded.offers.get(role, {})
    having = [
        name
        for name in sorted(offers)
        if any(key in attrs.fields_dict(cls) for cls in offers[name].values() if attrs.has(cls))
    ]
    if len(having) > 1:
        return f"\nThese parts have '{key}': {', '.join(having)}. Choose one of them, too (--{role} NAME)"
    if having:
        return f"\n{role.capitalize()} '{having[0]}' has '{key}': choose that part, too (--{role} {having[0]})"
    flag = flag_for(key)
    if flag is None or not flag.startswith(f"--{role}."):
        return ""
    return f"\n'{key}' of other libraries is {_dotted(flag)} here (on the command line, {flag})"


def refuse_misplaced(words: Sequence[str], chosen: Mapping[str, Any], loaded: Loaded) -> None:
    """Refuse an option that the chosen parts do not have, where it is known what was meant; `chosen`: their settings.

    Others are left to tyro, which offers options of similar names.
    """
    for word in words:
        found = re.fullmatch(r"--([a-z]+)\.(?:no[-_])?([\w-]+)(?:\.([\w-]+))?(?:=.*)?", word, re.DOTALL)
        if found is None or found[1] not in chosen:
            continue
        group, key = found[1], found[2].replace("-", "_")
        settings, option = chosen[group], word.partition("=")[0]
        if isinstance(getattr(settings, key, None), dict):
            if found[3] is not None:
                table = f"--{group}.{found[2]} {found[3].replace('-', '_')} VALUE"
                raise UsageError(f"no option {option}: a table takes names and values in turn, {table}")
        elif not hasattr(settings, key) and not hasattr(settings, f"no_{key}"):
            if group == "optimizer" and key in arguments_of(settings.name):
                raise UsageError(f"no option {option}: here it is --optimizer.options {key} VALUE")
            hint = setting_hint(group, key, loaded)
            if hint:
                raise UsageError(f"no option {option}.{hint}")


def arguments_of(optimizer: str) -> set[str]:
    """The names of the further arguments that a class of torch.optim takes; none, where there is no such class."""
    import torch

    cls = getattr(torch.optim, optimizer, None)
    return set() if cls is None else set(inspect.signature(cls.__init__).parameters) - {"self", "params", "lr"}


def gymnasium_hint(name: str) -> str:
    """What to say of an unknown environment that may be one of Gymnasium's: how its plugin makes it."""
    import gymnasium

    bare = name.rpartition(":")[2]
    ids = {one.lower(): one for one in gymnasium.registry}
    near = get_close_matches(bare.lower(), ids, n=1, cutoff=0.9)
    found = ids[near[0]] if near else None
    if found is None and not re.search(r"-v\d+$", bare):
        return ""
    whole = name if found is None else name.removesuffix(bare) + found
    return (
        f"\nAn environment of Gymnasium is named by its id: --environment gymnasium --environment.id {whole}, "
        f'or environment={{"name": "gymnasium", "id": "{whole}"}} in Python'
    )


def refuse_actions(part: Part, space: Space[Any], loaded: Loaded) -> None:
    """Refuse a policy that does not take a space of actions, and name those that do, and their recipes.

    A policy's settings class lists in `takes` which classes of `gymnasium.spaces` it takes; without it, all.
    """
    taken = _takes(type(part.settings))
    if not all(isinstance(kind, type) for kind in taken):
        raise UsageError(f"{part.label}: takes must be a tuple of classes of gymnasium.spaces, got {taken!r}")
    if not taken or isinstance(space, taken):
        return
    kinds = " or ".join(kind.__name__ for kind in taken)
    offers = loaded.offers["policy"]
    fitting = [name for name in sorted(offers) if any(_fits(cls, space) for cls in offers[name].values())]
    recipes = loaded.offers["recipe"]
    brought = [
        name
        for name in sorted(recipes)
        for tree in list(recipes[name].values())[:1]
        if isinstance(tree.get("policy"), dict) and tree["policy"].get("name") in fitting
    ]
    remedy = f"choose --policy {_either(fitting)}" if fitting else "no policy that is installed does"
    also = f", or --recipe {_either(brought)}" if brought else ""
    raise UsageError(f"policy '{part.name}' takes {kinds} actions, and the environment's are {space}: {remedy}{also}")


def _either(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def _takes(cls: type) -> tuple[Any, ...]:
    taken = inspect.getattr_static(cls, "takes", ())
    return tuple(taken) if isinstance(taken, tuple | list | frozenset) else (taken,)


def _fits(cls: type, space: Space[Any]) -> bool:
    return any(isinstance(kind, type) and isinstance(space, kind) for kind in _takes(cls))
