"""Mutants of policies, each killed by a law."""

import framework_networks.network as network
import framework_policies.actor_critic as actor_critic
import framework_policies.gaussian as gaussian
import framework_policies.multi_categorical as multi_categorical
import numpy as np
import pytest
from gymnasium.spaces import Box
from hypothesis import strategies as st
from mutants import is_killed, mutate
from policy_laws import (
    BOXES,
    DENSITIES,
    DEVIATIONS,
    ENVIRONMENTS,
    FINITE,
    MEANS,
    OBSERVATIONS,
    SEEDS,
    SEVERAL_ARGUMENTS,
    SMOOTH,
    law_densities_are_torchs,
    law_densities_integrate_to_one,
    law_gradients_are_right,
    law_looking_up_is_a_shortcut,
    law_masks_forbid,
    law_samples_are_normal,
    law_several_actions_are_independent,
    law_the_environment_gets_actions_of_its_space,
    masks,
)

# Mutants

CHANGES = {
    "forgets that states begin elsewhere": (
        law_looking_up_is_a_shortcut,
        network,
        (),
        (FINITE.filter(lambda space: space.start < 0), SEEDS),
        ("return observations - self.first_state if self.first_state else observations", "return observations"),
    ),
    "cuts the embedding's graph": (
        law_looking_up_is_a_shortcut,
        network,
        (),
        (FINITE, SEEDS),
        ("return self.embedding.weight, self", "return self.embedding.weight.detach(), self"),
    ),
    "gathers columns": (
        law_looking_up_is_a_shortcut,
        network,
        (),
        (FINITE, SEEDS),
        ("rows.reshape(-1)).reshape", "rows.reshape(-1).flip(0)).reshape"),
    ),
    "forgets the first numbers": (
        law_several_actions_are_independent,
        multi_categorical,
        (),
        SEVERAL_ARGUMENTS,
        ("(actions - self.first).unsqueeze", "actions.unsqueeze"),
    ),
    "lets actions overlap": (
        law_several_actions_are_independent,
        multi_categorical,
        (),
        SEVERAL_ARGUMENTS,
        ("counts.cumsum() - counts", "counts.cumsum() - counts.cumsum()"),
    ),
    "counts what is missing": (
        law_several_actions_are_independent,
        multi_categorical,
        (),
        SEVERAL_ARGUMENTS,
        ("masked_log_softmax(rows, ~self.missing)", "masked_log_softmax(rows, None)"),
    ),
    "takes the entropy of one action": (
        law_several_actions_are_independent,
        multi_categorical,
        (),
        SEVERAL_ARGUMENTS,
        ("entropy(log_probs).sum(-1)", "entropy(log_probs)[..., 0]"),
    ),
    "ignores masks": (
        law_masks_forbid,
        multi_categorical,
        ("multi_categorical",),
        (OBSERVATIONS, masks([2, 4, 1]), SEEDS),
        ("outputs.masked_fill(~allowed, -torch.inf)", "outputs"),
    ),
    "ignores masks when evaluating": (
        law_masks_forbid,
        actor_critic,
        ("actor_critic",),
        (BOXES, masks([3]), SEEDS),
        ("else outputs[..., : self.count], inputs.action_masks)", "else outputs[..., : self.count], None)"),
    ),
    "lets gradients overflow": (
        law_masks_forbid,
        multi_categorical,
        ("multi_categorical",),
        (OBSERVATIONS, masks([2, 4, 1]), SEEDS),
        (
            "uncertain = entropy(log_probs).sum(-1)",
            "uncertain = -(log_probs.exp() * log_probs.clamp(min=torch.finfo(log_probs.dtype).min)).sum((-2, -1))",
        ),
    ),
    "cuts the critic's graph": (
        law_gradients_are_right,
        actor_critic,
        ("actor_critic, shared",),
        (SMOOTH, SEEDS),
        (
            "return Evaluation(*log_probs_and_entropies(",
            "values = values.detach()\n        return Evaluation(*log_probs_and_entropies(",
        ),
    ),
    "forgets the scale of the box": (
        law_densities_are_torchs,
        gaussian,
        (),
        DENSITIES,
        ("sums.sum(-1) - self.log_scale", "sums.sum(-1)"),
    ),
    "forgets the derivative of tanh": (
        law_densities_are_torchs,
        gaussian,
        (),
        DENSITIES,
        ("sums = sums - log_slopes(actions)", "pass"),
    ),
    "adds the derivative of tanh": (
        law_densities_integrate_to_one,
        gaussian,
        (),
        (st.just(True), MEANS, DEVIATIONS),
        ("sums = sums - log_slopes(actions)", "sums = sums + log_slopes(actions)"),
    ),
    "averages over numbers": (
        law_densities_are_torchs,
        gaussian,
        (),
        DENSITIES,
        ("sums.sum(-1) - self.log_scale", "sums.mean(-1) - self.log_scale"),
    ),
    "takes log-deviations for log-variances": (
        law_densities_integrate_to_one,
        gaussian,
        (),
        (st.booleans(), MEANS, DEVIATIONS),
        ("torch.exp(-logs)).square()", "torch.exp(-logs / 2)).square()"),
    ),
    "squashes half as much": (
        law_densities_are_torchs,
        gaussian,
        (),
        DENSITIES,
        ("torch.sigmoid(2 * actions)", "torch.sigmoid(actions)"),
    ),
    "interpolates past the bounds": (
        law_the_environment_gets_actions_of_its_space,
        gaussian,
        (),
        ENVIRONMENTS,
        (
            "torch.lerp(self.low, self.high, torch.sigmoid(2 * actions))",
            "self.low + (self.high - self.low) * (torch.tanh(actions) + 1) / 2",
        ),
    ),
    "does not clip": (
        law_the_environment_gets_actions_of_its_space,
        gaussian,
        (),
        ENVIRONMENTS,
        ("return actions.clamp(self.low, self.high)", "return actions"),
    ),
    "hands on another dtype": (
        law_the_environment_gets_actions_of_its_space,
        gaussian,
        (),
        (st.just(Box(0.1, 0.7, (2,), np.float64)), st.just(False), SEEDS),
        ("return actions.clamp(self.low, self.high)", "return actions.clamp(self.low, self.high).float()"),
    ),
    "forgets the expectation in the entropy": (
        law_densities_integrate_to_one,
        gaussian,
        (),
        (st.just(True), MEANS, DEVIATIONS),
        ("each = each + log_slopes(points) @ self.shares", "pass"),
    ),
    "takes the expectation at the mean": (
        law_densities_integrate_to_one,
        gaussian,
        (),
        (st.just(True), MEANS, DEVIATIONS),
        (
            "points = means.unsqueeze(-1) + logs.exp().unsqueeze(-1) * self.nodes",
            "points = means.unsqueeze(-1) * (self.nodes * 0 + 1)",
        ),
    ),
    "cuts the deviation's graph in the entropy": (
        law_gradients_are_right,
        gaussian,
        ("gaussian, state, squashed",),
        (SMOOTH, SEEDS),
        ("logs.exp().unsqueeze(-1) * self.nodes", "logs.detach().exp().unsqueeze(-1) * self.nodes"),
    ),
    "samples with the variance": (
        law_samples_are_normal,
        gaussian,
        (),
        (st.just("global"), st.integers(0, 5)),
        ("torch.addcmul(means, logs.exp(), noise)", "torch.addcmul(means, (2 * logs).exp(), noise)"),
    ),
    "samples all numbers alike": (
        law_samples_are_normal,
        gaussian,
        (),
        (st.just("state"), st.integers(0, 5)),
        (".normal_(generator=generator)", ".normal_(generator=generator)[:, :1]"),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_law_kills_the_mutant_that(name):
    law, module, fixed, strategies, change = CHANGES[name]
    is_killed(law, *strategies, arguments=(*fixed, mutate(module.__name__, change)))
