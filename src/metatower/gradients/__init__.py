"""How a gradient crosses a storey; chosen per storey with `gradient=`."""

from metatower.core.gradient import Unrolled as Unrolled
from metatower.gradients.clipped import Clipped as Clipped
from metatower.gradients.evolution import Evolution as Evolution
from metatower.gradients.first_order import FirstOrder as FirstOrder
from metatower.gradients.forward import ForwardMode as ForwardMode
from metatower.gradients.implicit import Implicit as Implicit
from metatower.gradients.lifelong import Lifelong as Lifelong
from metatower.gradients.lifelong import rising_weights as rising_weights
from metatower.gradients.mixed import MixedMode as MixedMode
from metatower.gradients.multi_step import MultiStep as MultiStep
from metatower.gradients.multi_step import multi_step_weights as multi_step_weights
from metatower.gradients.nres import NRES as NRES
from metatower.gradients.pes import PES as PES
from metatower.gradients.relative import Relative as Relative
from metatower.gradients.reptile import Reptile as Reptile
from metatower.gradients.score_function import ScoreFunction as ScoreFunction
from metatower.gradients.switching import Switching as Switching
from metatower.gradients.truncated import Truncated as Truncated
