"""Expected gradients by enumeration."""

import framework_reinforce.score_function as score_function
import torch
from worlds import enumerate_episodes

from framework import Batch, Evaluation
from framework.testing.strategies import Episode, assemble


def expected_gradient(world, logits, estimator, constant):
    """The exactly enumerated expected gradient of one episode's −Σ A·log π, for returns minus a constant."""
    probabilities = logits.softmax(1).detach()
    total = torch.zeros(())
    for probability, steps, terminated in enumerate_episodes(world, probabilities):
        rollout = assemble([[Episode(tuple(r for _, _, r in steps), terminated, not terminated)]], dtype=torch.float64)
        advantages = estimator(rollout).returns[:, 0] - constant
        states, actions = ([step[i] for step in steps] for i in (0, 1))
        log_probs = logits.log_softmax(1)[states, actions]
        batch = Batch(*([log_probs.detach()] * 3), advantages, advantages, advantages, len(steps), 1.0)
        terms = score_function.Reinforce()(batch, Evaluation(log_probs)).terms
        total = total + probability * sum(term.sum() for term in terms.values())
    return torch.autograd.grad(total, logits)[0]
