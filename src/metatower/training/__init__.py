"""The host loop: steps in compiled chunks, checkpoints, progress, records."""

from metatower.training.failure import NonFinite as NonFinite
from metatower.training.failure import replay as replay
from metatower.training.loop import Interrupted as Interrupted
from metatower.training.loop import train as train
from metatower.training.progress import Progress as Progress
from metatower.training.progress import progress as progress
from metatower.training.store import load_arrays as load_arrays
from metatower.training.store import save_arrays as save_arrays
