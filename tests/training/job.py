"""A short training run in a process of its own, for the tests that kill it: `python job.py FOLDER [END]`.

END: "write:N" kills the process at its N-th call that changes the disk, "full:N" makes the disk full from then on,
"slow" makes every dispatch wait, so that there is time to be killed on any machine.
Prints a checksum of the final state.
"""

import errno
import hashlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import jax

import metatower as mt
from metatower.nets import MLP, Supervised, squared_error
from metatower.tasks.functions import Sinusoids
from metatower.training import loop, runtime, train

STEPS = 4000


def arrange(end):
    """Puts the end into the calls through which everything reaches the disk."""
    kind, number = end.split(":")
    calls = 0

    def counted(call):
        def instead(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls >= int(number):
                if kind == "write":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise OSError(errno.ENOSPC, "No space left on device")
            return call(*args, **kwargs)

        return instead

    for module, name in ((os, "fsync"), (os, "replace"), (os, "rename"), (shutil, "rmtree"), (Path, "mkdir")):
        setattr(module, name, counted(getattr(module, name)))


def main(folder, end=None):
    runtime.setup()
    loop.SECONDS = 0.03  # many dispatches, so that there are many moments to be killed at
    if end == "slow":
        wait = loop.wait
        loop.wait = lambda finished: (time.sleep(0.05), wait(finished))
    elif end:
        arrange(end)
    learner = mt.Descend(Supervised(MLP((1, 8, 1), key=jax.random.key(0)), squared_error), mt.sgd(0.01))
    top = mt.lift(learner, mt.adam(1e-3), batch=4)
    state = train(
        top, Sinusoids(5, 5), steps=STEPS, seed=0, folder=Path(folder), config={"a": 1}, checkpoint_every_seconds=0.05
    )
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(state):
        digest.update(jax.device_get(leaf).tobytes())
    print(digest.hexdigest())


if __name__ == "__main__":
    main(*sys.argv[1:])
