"""Stable-Baselines3: `PPO` with "MlpPolicy" and `make_vec_env`'s lanes (DummyVecEnv with Monitor, its default)."""

from job import CLIP, EPOCHS, EPS, GAMMA, HIDDEN, ITERATIONS, LAM, LR, MAX_GRAD_NORM, STEPS, VALUE, Watch

watch = Watch()

import torch  # noqa: E402
from stable_baselines3 import PPO  # noqa: E402
from stable_baselines3.common.callbacks import BaseCallback  # noqa: E402
from stable_baselines3.common.env_util import make_vec_env  # noqa: E402

torch.set_num_threads(1)


class Callback(BaseCallback):
    """Tells the watch."""

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                watch.episode(self.num_timesteps, info["episode"]["r"])
        return not watch.over

    def _on_rollout_start(self) -> None:  # after the updates of the iteration before
        if self.num_timesteps:
            watch.iteration()

    def _on_training_end(self) -> None:
        if not watch.over:
            watch.iteration()


learner = PPO(
    "MlpPolicy",
    make_vec_env("CartPole-v1", watch.lanes, seed=watch.seed),
    # what remains has this iteration's steps taken off already
    learning_rate=lambda remaining: LR * (remaining + 1 / ITERATIONS),
    n_steps=STEPS,
    batch_size=watch.minibatch,
    n_epochs=EPOCHS,
    gamma=GAMMA,
    gae_lambda=LAM,
    clip_range=CLIP,
    ent_coef=0.0,
    vf_coef=VALUE,
    max_grad_norm=MAX_GRAD_NORM,
    policy_kwargs={"net_arch": {"pi": [*HIDDEN], "vf": [*HIDDEN]}, "optimizer_kwargs": {"eps": EPS}},
    seed=watch.seed,
    device="cpu",
)
learner.learn(watch.batch * ITERATIONS, callback=Callback())
watch.report("stable-baselines3", "torch", "gymnasium", "numpy")
