"""Environments with explicit tasks, and the one `Trial` that owns resets."""

from metatower.envs.arm import Arm as Arm
from metatower.envs.arm import ArmTask as ArmTask
from metatower.envs.bandit import BernoulliBandit as BernoulliBandit
from metatower.envs.bandit_family import BanditFamily as BanditFamily
from metatower.envs.cartpole import CartPole as CartPole
from metatower.envs.checked import check_environment as check_environment
from metatower.envs.gridnavi import GridNavi as GridNavi
from metatower.envs.mdp import MDP as MDP
from metatower.envs.mdp import RandomMDP as RandomMDP
from metatower.envs.navigation import Navigation as Navigation
from metatower.envs.pendulum import Pendulum as Pendulum
from metatower.envs.protocol import Box as Box
from metatower.envs.protocol import Discrete as Discrete
from metatower.envs.protocol import Environment as Environment
from metatower.envs.protocol import Solvable as Solvable
from metatower.envs.protocol import Step as Step
from metatower.envs.told import Told as Told
from metatower.envs.told import told as told
from metatower.envs.trial import Outcome as Outcome
from metatower.envs.trial import Seen as Seen
from metatower.envs.trial import Trial as Trial
from metatower.envs.trial import TrialState as TrialState
from metatower.envs.trial import World as World
from metatower.envs.trial import Worlds as Worlds
