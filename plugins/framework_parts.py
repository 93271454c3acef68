"""The settings classes of all built-in parts in one place: `from framework_parts import CartPole, PPO`.

Which name on the command line is which class: docs/reference/parts.md.
"""

from framework_baselines import Constant, GroupMean, LinearFeatures, MovingAverage, TimeMean, Value
from framework_classic import Acrobot, CartPole, MountainCar, Pendulum
from framework_corridor import Corridor
from framework_evaluation import EarlyStop, Evaluate
from framework_gymnasium import Gymnasium
from framework_line_world import LineWorld
from framework_losses import PPO, ActorCriticLoss
from framework_policies import ActorCritic, Gaussian, MultiCategorical, Recurrent, Tabular
from framework_reinforce import (
    REINFORCE,
    BatchMean,
    Categorical,
    LeaveOneOut,
    NoBaseline,
    RewardsToGo,
    TotalReturn,
)
from framework_reports import Plot, Progress, Record
from framework_returns import GAE, TD0, LambdaReturns, NStep, VTrace
from framework_scale_rewards import ScaleRewards
from framework_standardize import Standardize
from framework_tabular_worlds import Cliff, RandomMDP, ShortCorridor

__all__ = [
    "GAE",
    "PPO",
    "REINFORCE",
    "TD0",
    "Acrobot",
    "ActorCritic",
    "ActorCriticLoss",
    "BatchMean",
    "CartPole",
    "Categorical",
    "Cliff",
    "Constant",
    "Corridor",
    "EarlyStop",
    "Evaluate",
    "Gaussian",
    "GroupMean",
    "Gymnasium",
    "LambdaReturns",
    "LeaveOneOut",
    "LineWorld",
    "LinearFeatures",
    "MountainCar",
    "MovingAverage",
    "MultiCategorical",
    "NStep",
    "NoBaseline",
    "Pendulum",
    "Plot",
    "Progress",
    "RandomMDP",
    "Record",
    "Recurrent",
    "RewardsToGo",
    "ScaleRewards",
    "ShortCorridor",
    "Standardize",
    "Tabular",
    "TimeMean",
    "TotalReturn",
    "VTrace",
    "Value",
]
