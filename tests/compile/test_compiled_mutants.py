"""Mutants of the compiled updates, each of which a comparison with Python kills."""

import contextlib
import warnings

import pytest
from compiled_cases import (
    CHANGED,
    OFTEN,
    STOPPING,
    agrees,
    assert_same,
    beyond_float32,
    cancelling,
    exchanging,
    falls_back,
    forgetful,
    kl_limit,
    leads_elsewhere,
    replaced_step,
    scheduled,
    seen_alike,
    unlucky,
    watched,
)
from mutants import mutate_either

import framework

pytestmark = pytest.mark.usefixtures("collected_in_python")


MUTANTS = {
    "forgets the denominator": (
        agrees("ppo, gaussian", "uneven"),
        "term.sum() / count.to(term.dtype) for",
        "term.sum() for",
    ),
    "records the denominator as a number": (
        agrees("actor_critic, categorical states", "uneven"),
        "term.sum() / count.to(term.dtype) for",
        "term.sum() / float(block.inputs[-3]) for",
    ),
    "does not clip": (
        agrees("ppo, gaussian", "minibatches"),
        "        if most is not None:\n            gradient =",
        "        if False:\n            gradient =",
    ),
    "descends the first term only": (
        agrees("ppo, gaussian", "plain"),
        "total = functools.reduce(operator.add, terms)",
        "total = terms[0]",
    ),
    "mixes the parameters up": (
        agrees("ppo, gaussian", "plain"),
        "parts[learnt[id(tensor)]]",
        "parts[-learnt[id(tensor)]]",
    ),
    "draws while it records": (
        lambda module: assert_same(forgetful(True, module), forgetful(False)),
        "with undisturbed():",
        "with quiet():",
    ),
    "never compares": (
        lambda module: falls_back(CHANGED, module),
        "        if batch is not None:\n            with",
        "        if False:\n            with",
    ),
    "goes on when the loss has ended the epochs": (kl_limit, "stop | ~row[", "~row["),
    "moves where the loss ends the epochs": (kl_limit, "torch.where(halts, old, new)", "new"),
    "counts what ended them as an update": (kl_limit, "t + 1 - halts.long()", "t + 1"),
    "does not count the optimizer's steps": (
        agrees("ppo, gaussian", "minibatches"),
        'block.state["step"] += count',
        "pass",
    ),
    "does each update with the first minibatch": (
        agrees("ppo, gaussian", "minibatches"),
        "given[which] = given[which].index_select(0, place)",
        "given[which] = given[which].index_select(0, place * 0)",
    ),
    "scales each step as the first": (
        agrees("ppo, gaussian", "minibatches"),
        "given[scales] = given[scales].index_select(0, place)",
        "given[scales] = given[scales].index_select(0, place * 0)",
    ),
    "begins to scale anew with each call": (
        agrees("ppo, gaussian", "minibatches"),
        "rule.scales(rate, done - (at - first), last - first)",
        "rule.scales(rate, 0 - (at - first), last - first)",
    ),
    "leaves the gradient before the last": (
        agrees("ppo, gaussian", "minibatches"),
        "flat.take(gradient)",
        "compared and flat.take(gradient)",
    ),
    "records the learning rate": (
        scheduled,
        'optimizer.param_groups[0]["lr"], int',
        "run.config.optimizer.lr, int",
    ),
    "takes all minibatches for as large as the next": (
        agrees("ppo, gaussian", "uneven"),
        "while last < len(sizes) and sizes[last] == sizes[at]",
        "while last < len(sizes)",
    ),
    "steps at once behind a watcher's back": (watched, "is_watched(optimizer) or", "False or"),
    "steps at once in place of a step that was replaced": (
        lambda module: replaced_step(module),
        ' or "step" in vars(optimizer)',
        "",
    ),
    "does not look at steps": (
        leads_elsewhere,
        "if block.rule is not None and apart > NEAR",
        "if False and apart > NEAR",
    ),
    "takes a sum beyond float32 for no number": (
        beyond_float32,
        "~row[: 2 + len(terms)].sum().isfinite()",
        "~row[: 2 + len(terms)].float().sum().isfinite()",
    ),
    "shows no batch": (
        lambda module: seen_alike(OFTEN, module=module),
        "            run.batch = whole",
        "            pass",
    ),
    "leaves the gradient of a comparison": (
        lambda module: seen_alike(STOPPING, module=module),
        "            flat.gradient.copy_(last)",
        "            pass",
    ),
    "draws other random numbers when it does an update again": (
        lambda module: [unlucky(seed, module) for seed in range(3)],
        "            torch.set_rng_state(random)\n            again",
        "            again",
    ),
    "does not inspect parameters again after hooks of a step": (
        lambda module: exchanging(module),
        "before, self.iteration = vector.clone(), -1",
        "before = vector.clone()",
    ),
    "takes rounding for a difference": (cancelling, "4 * rounding()", "0 * rounding()"),
    "asks the loss itself while it records": (
        lambda module: falls_back("loss 'Counting' .* changes while it works", module),
        "run.loss, copy.deepcopy(run.loss)",
        "run.loss, run.loss",
    ),
}


@contextlib.contextmanager
def quiet():
    """Torch's warnings are not said, and nothing else is put right."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_law_kills_the_mutant_that(name, graphs):
    """By its own comparison, which warns, or by the one with a run in Python."""
    law, *change = MUTANTS[name]
    law(None)
    with pytest.raises((AssertionError, AttributeError, framework.PartError, RuntimeWarning, pytest.fail.Exception)):
        law(mutate_either("framework.compile.updates", "framework.compile.update_program", tuple(change), quiet=quiet))
