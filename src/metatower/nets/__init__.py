"""Networks, and the objectives made of them."""

from metatower.nets.conv import Conv as Conv
from metatower.nets.conv import ConvNet as ConvNet
from metatower.nets.conv import convolve as convolve
from metatower.nets.conv import max_pool as max_pool
from metatower.nets.minibatch import Minibatch as Minibatch
from metatower.nets.mlp import MLP as MLP
from metatower.nets.mlp import Linear as Linear
from metatower.nets.norm import BatchNorm as BatchNorm
from metatower.nets.norm import Moments as Moments
from metatower.nets.norm import batch_norm as batch_norm
from metatower.nets.norm import forward as forward
from metatower.nets.norm import norms as norms
from metatower.nets.norm import with_norm as with_norm
from metatower.nets.norm import with_running as with_running
from metatower.nets.policy import ActorCritic as ActorCritic
from metatower.nets.policy import Categorical as Categorical
from metatower.nets.policy import Gaussian as Gaussian
from metatower.nets.policy import Head as Head
from metatower.nets.recurrent import GRU as GRU
from metatower.nets.recurrent import Forgetful as Forgetful
from metatower.nets.recurrent import Memory as Memory
from metatower.nets.recurrent import MinGRU as MinGRU
from metatower.nets.supervised import Examples as Examples
from metatower.nets.supervised import Supervised as Supervised
from metatower.nets.supervised import cross_entropy as cross_entropy
from metatower.nets.supervised import squared_error as squared_error
