"""The recursion, and nothing else."""

from metatower.core.contract import Data as Data
from metatower.core.contract import Gradient as Gradient
from metatower.core.contract import Learner as Learner
from metatower.core.contract import Metrics as Metrics
from metatower.core.contract import Objective as Objective
from metatower.core.contract import Rule as Rule
from metatower.core.contract import Run as Run
from metatower.core.contract import Scored as Scored
from metatower.core.contract import State as State
from metatower.core.contract import Task as Task
from metatower.core.contract import Tasks as Tasks
from metatower.core.contract import run as run
from metatower.core.describe import describe as describe
from metatower.core.gradient import Detached as Detached
from metatower.core.gradient import Unrolled as Unrolled
from metatower.core.leaves import Constant as Constant
from metatower.core.leaves import Positive as Positive
from metatower.core.leaves import Selector as Selector
from metatower.core.leaves import names as names
from metatower.core.leaves import pick as pick
from metatower.core.leaves import put as put
from metatower.core.leaves import value as value
from metatower.core.tower import Descend as Descend
from metatower.core.tower import Descent as Descent
from metatower.core.tower import Expected as Expected
from metatower.core.tower import lift as lift
