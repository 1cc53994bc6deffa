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
from metatower.nets.sets import SetEncoder as SetEncoder
from metatower.nets.supervised import Examples as Examples
from metatower.nets.supervised import Supervised as Supervised
from metatower.nets.supervised import cross_entropy as cross_entropy
from metatower.nets.supervised import squared_error as squared_error
