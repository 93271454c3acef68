"""RLlib: `PPO` of the new API stack, with the environment runner and the learner in this process.

Otherwise: Adam's ε is not a setting (1e-8); advantages are standardised over the whole rollout, which has one more step
for each end, so that an iteration has 17 updates; its own processes run beside this one, and are not in its memory.
"""

from job import CLIP, EPOCHS, GAMMA, HIDDEN, ITERATIONS, LAM, LR, MAX_GRAD_NORM, STEPS, VALUE, Watch

watch = Watch()

import logging  # noqa: E402

import ray  # noqa: E402
import torch  # noqa: E402
from ray.rllib.algorithms.ppo import PPOConfig  # noqa: E402
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig  # noqa: E402

torch.set_num_threads(1)
ray.init(num_cpus=1, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)


def ended(*, episode, **_):
    # its length, which is its return here: `get_return` knows only what came since the last rollout's end
    watch.episode((len(watch.ends) + 1) * watch.batch, episode.t)


settings = (
    PPOConfig()
    .environment("CartPole-v1")
    .env_runners(num_env_runners=0, num_envs_per_env_runner=watch.lanes, rollout_fragment_length=STEPS)
    .learners(num_learners=0)
    .training(
        train_batch_size_per_learner=watch.batch,
        minibatch_size=watch.minibatch,
        num_epochs=EPOCHS,
        gamma=GAMMA,
        lambda_=LAM,
        clip_param=CLIP,
        vf_loss_coeff=VALUE,
        vf_clip_param=float("inf"),
        entropy_coeff=0.0,
        use_kl_loss=False,
        lr=[[0, LR], [watch.batch * ITERATIONS, 0.0]],
        grad_clip=MAX_GRAD_NORM,
        grad_clip_by="global_norm",
    )
    .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[*HIDDEN], fcnet_activation="tanh", vf_share_layers=False))
    .callbacks(on_episode_end=ended)
    .debugging(seed=watch.seed, log_level="ERROR")
)
algorithm = settings.build_algo()
while not watch.over:
    algorithm.train()
    watch.iteration()
watch.report("ray", "torch", "gymnasium", "numpy")
algorithm.stop()
ray.shutdown()
