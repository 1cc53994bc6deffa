"""How leaves move. Hyper-parameters are leaves too, so the storey above can learn them."""

from metatower.rules.adam import adam as adam
from metatower.rules.common import PerLeaf as PerLeaf
from metatower.rules.common import rates_for as rates_for
from metatower.rules.drift import drift as drift
from metatower.rules.learned import Coordinatewise as Coordinatewise
from metatower.rules.learned import learned_lstm as learned_lstm
from metatower.rules.learned import learned_mlp as learned_mlp
from metatower.rules.online import online as online
from metatower.rules.preconditioner import kronecker as kronecker
from metatower.rules.remembering import remembering as remembering
from metatower.rules.sgd import momentum as momentum
from metatower.rules.sgd import sgd as sgd
from metatower.rules.task_conditioned import task_conditioned as task_conditioned
from metatower.rules.wrappers import anneal as anneal
from metatower.rules.wrappers import clip as clip
from metatower.rules.wrappers import from_optax as from_optax
from metatower.rules.wrappers import only as only
from metatower.rules.wrappers import per_step as per_step
from metatower.rules.wrappers import rescaled as rescaled
from metatower.rules.wrappers import scaled as scaled
