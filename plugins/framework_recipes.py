"""Named configurations of well-known algorithms; flags and files win over them."""

from typing import Any

from framework import hookimpl

A2C = {
    # Mnih et al. 2016, arXiv:1602.01783, algorithm S3: returns to the end of a short rollout, a critic, one update
    "policy": {"name": "actor_critic"},
    "estimator": {"name": "n_step", "n": 5},
    "baseline": {"name": "value"},
    "loss": {"name": "actor_critic", "value": 0.5, "entropy": 0.01},
    "rollout": {"lanes": 16, "fixed_steps": 5},
    "update": {"max_grad_norm": 0.5},
    "optimizer": {"name": "RMSprop", "lr": 7e-4, "options": {"alpha": 0.99, "eps": 1e-5}},
}

PPO = {
    # Schulman et al. 2017, arXiv:1707.06347: clipped ratios, several epochs; advantages standardised in the minibatch.
    # Learning rate, target_kl and iterations (199,680 rows) were fixed on CartPole-v1: docs/evidence.md
    "policy": {"name": "actor_critic", "hidden": [64, 64], "activation": "tanh"},
    "estimator": {"name": "gae", "gamma": 0.99, "lam": 0.95},
    "baseline": {"name": "value"},
    "loss": {"name": "ppo", "clip": 0.2, "value": 0.5, "target_kl": 0.05},
    "rollout": {"lanes": 8, "fixed_steps": 128},
    "update": {"epochs": 4, "minibatches": 4, "max_grad_norm": 0.5},
    "optimizer": {"name": "Adam", "lr": 2.5e-3, "schedule": "linear", "options": {"eps": 1e-5}},
    "extensions": {"names": ["standardize"], "standardize": {"within": "minibatch"}},
    "iterations": 195,
}

PPO_CONTINUOUS = {
    # Huang et al. 2022, "The 37 implementation details of proximal policy optimization", the nine for continuous
    # actions, as CleanRL's ppo_continuous_action.py has them for a million steps of MuJoCo (there with clipped values,
    # here without)
    "environment": {"name": "gymnasium", "id": "Pendulum-v1"},
    "policy": {"name": "gaussian", "hidden": [64, 64], "activation": "tanh", "orthogonal": True, "normalize": True},
    "estimator": {"name": "gae", "gamma": 0.99, "lam": 0.95},
    "baseline": {"name": "value"},
    "loss": {"name": "ppo", "clip": 0.2, "value": 0.5},
    "rollout": {"lanes": 1, "fixed_steps": 2048},
    "update": {"epochs": 10, "minibatches": 32, "max_grad_norm": 0.5},
    "optimizer": {"name": "Adam", "lr": 3e-4, "schedule": "linear", "options": {"eps": 1e-5}},
    "extensions": {
        "names": ["scale_rewards", "standardize"],
        "scale_rewards": {"gamma": 0.99},
        "standardize": {"within": "minibatch"},
    },
    "iterations": 488,
}

RLOO = {
    # Kool et al. 2019; Ahmadian et al. 2024, arXiv:2402.14740: whole episodes, compared with the others
    "policy": {"name": "categorical"},
    "estimator": {"name": "total_return", "gamma": 1.0},
    "baseline": {"name": "leave_one_out"},
    "loss": {"name": "reinforce"},
    "rollout": {"lanes": 16, "episodes": 16},
    "update": {"denominator": "per_episode"},
    "optimizer": {"lr": 3e-3},
}

GRPO = {
    # Shao et al. 2024, arXiv:2402.03300: groups that share a start, compared and scaled within it. Without the KL
    # term, and each step weighs alike (per_step), where eq. 3 first takes the mean over each episode's steps.
    "environment": {"name": "line_world", "group_size": 8},
    "policy": {"name": "categorical"},
    "estimator": {"name": "total_return", "gamma": 1.0},
    "baseline": {"name": "group_mean"},
    "loss": {"name": "ppo", "clip": 0.2, "value": 0.0},
    "rollout": {"lanes": 32, "episodes": 32},
    "update": {"epochs": 2, "minibatches": 2},
    "extensions": {"names": ["standardize"], "standardize": {"within": "group", "center": False, "epsilon": 1e-6}},
}


@hookimpl
def recipes() -> dict[str, Any]:
    """Offer the recipes."""
    return {"a2c": A2C, "grpo": GRPO, "ppo": PPO, "ppo_continuous": PPO_CONTINUOUS, "rloo": RLOO}
