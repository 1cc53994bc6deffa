"""Networks, and the objectives made of them."""

from metatower.nets.mlp import MLP as MLP
from metatower.nets.mlp import Linear as Linear
from metatower.nets.supervised import Examples as Examples
from metatower.nets.supervised import Supervised as Supervised
from metatower.nets.supervised import cross_entropy as cross_entropy
from metatower.nets.supervised import squared_error as squared_error
