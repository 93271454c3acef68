"""skrl: `PPO` and `RandomMemory` on Gymnasium's SyncVectorEnv through `wrap_env`, with its `SequentialTrainer`'s loop.

Otherwise: it standardises advantages over the whole rollout, and its rollouts hold the steps in which Gymnasium resets
a lane (autoreset at the next step). The schedule steps once an epoch; nothing is written to TensorBoard.
"""

from job import CLIP, EPOCHS, EPS, GAMMA, HIDDEN, ITERATIONS, LAM, LR, MAX_GRAD_NORM, MINIBATCHES, STEPS, VALUE, Watch

watch = Watch()

import gymnasium  # noqa: E402
import torch  # noqa: E402
from gymnasium.wrappers.vector import RecordEpisodeStatistics  # noqa: E402
from skrl.agents.torch.ppo import PPO, PPO_CFG  # noqa: E402
from skrl.envs.wrappers.torch import wrap_env  # noqa: E402
from skrl.memories.torch import RandomMemory  # noqa: E402
from skrl.models.torch import CategoricalMixin, DeterministicMixin, Model  # noqa: E402
from skrl.utils import set_seed  # noqa: E402
from torch import nn  # noqa: E402

torch.set_num_threads(1)
set_seed(watch.seed)


def network(outputs):
    wide, narrow = HIDDEN
    return nn.Sequential(nn.Linear(4, wide), nn.Tanh(), nn.Linear(wide, narrow), nn.Tanh(), nn.Linear(narrow, outputs))


class Policy(CategoricalMixin, Model):
    def __init__(self, **spaces):
        Model.__init__(self, **spaces)
        CategoricalMixin.__init__(self)
        self.network = network(2)

    def compute(self, inputs, role):
        return self.network(inputs["observations"]), {}


class Value(DeterministicMixin, Model):
    def __init__(self, **spaces):
        Model.__init__(self, **spaces)
        DeterministicMixin.__init__(self)
        self.network = network(1)

    def compute(self, inputs, role):
        return self.network(inputs["observations"]), {}


worlds = wrap_env(
    RecordEpisodeStatistics(gymnasium.make_vec("CartPole-v1", watch.lanes, vectorization_mode="sync")),
    wrapper="gymnasium",
    verbose=False,
)
spaces = {"observation_space": worlds.observation_space, "action_space": worlds.action_space, "device": worlds.device}
settings = PPO_CFG(
    rollouts=STEPS,
    learning_epochs=EPOCHS,
    mini_batches=MINIBATCHES,
    discount_factor=GAMMA,
    gae_lambda=LAM,
    learning_rate=LR,
    learning_rate_scheduler=torch.optim.lr_scheduler.LambdaLR,
    learning_rate_scheduler_kwargs={"lr_lambda": lambda epoch: 1 - epoch // EPOCHS / ITERATIONS},
    grad_norm_clip=MAX_GRAD_NORM,
    ratio_clip=CLIP,
    value_clip=0.0,
    value_loss_scale=VALUE,
    time_limit_bootstrap=True,
)
settings.experiment.write_interval = 0
settings.experiment.checkpoint_interval = 0
agent = PPO(
    models={"policy": Policy(**spaces), "value": Value(**spaces)},
    memory=RandomMemory(memory_size=STEPS, num_envs=watch.lanes, device=worlds.device),
    cfg=settings,
    **spaces,
)
for group in agent.optimizer.param_groups:
    group["eps"] = EPS  # is no setting
timesteps = STEPS * ITERATIONS
agent.init(trainer_cfg=None)
agent.enable_training_mode(True)
observations, _ = worlds.reset()
step = 0

while not watch.over:  # as SequentialTrainer.train has it, which cannot be stopped
    for _ in range(STEPS):
        now = {"timestep": step, "timesteps": timesteps}
        agent.pre_interaction(**now)
        with torch.no_grad():
            actions, _ = agent.act(observations, None, **now)
            following, rewards, terminated, truncated, infos = worlds.step(actions)
            agent.record_transition(
                observations=observations,
                states=None,
                actions=actions,
                rewards=rewards,
                next_observations=following,
                next_states=None,
                terminated=terminated,
                truncated=truncated,
                infos=infos,
                **now,
            )
        step += 1
        if "episode" in infos:
            for score in infos["episode"]["r"][infos["_episode"]]:
                watch.episode(step * watch.lanes, score)
        agent.post_interaction(**now)
        observations = following
    watch.iteration()
watch.report("skrl", "torch", "gymnasium", "numpy")
