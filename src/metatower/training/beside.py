"""Work that can be done while something else keeps the device busy: above all the compiler's."""

import os
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress

import jax


@contextmanager
def beside(*jobs: Callable[[], object]) -> Generator[None, None, None]:
    """Does the jobs one after the other in a thread of their own, while what is inside the context runs.

    Their results are to be found where they leave them, as compiled programs in JAX's memory are. The context ends
    when the job under way does; once what is inside has ended, no further one is begun. A job that fails or is left
    out says nothing: whoever needs what it was to make does it then, and hears why. One of several processes does no
    job, since processes have to agree on the order of what they run. Ctrl-C while the context waits for the job under
    way is a KeyboardInterrupt once that job is done, as neither can the compiler be stopped nor Python end while it
    works. A second one, or the first if what was inside has been interrupted, ends the process at once (exit code 130).
    """
    ended, idle = threading.Event(), threading.Event()

    def work():
        try:
            for job in jobs:
                if ended.is_set():
                    return
                with suppress(Exception):
                    job()
        finally:
            idle.set()

    # not a daemon: an interpreter that ends while the compiler works would crash
    thread = threading.Thread(target=work)
    if jax.process_count() == 1:
        thread.start()
    failed = False
    try:
        yield
    except BaseException:
        failed = True
        raise
    finally:
        ended.set()
        if thread.ident is not None:
            _wait(idle, failed)
            thread.join()


def _wait(idle: threading.Event, stopping: bool) -> None:
    """Until the job is done; a Ctrl-C where all is `stopping` already ends the process."""
    if stopping and not idle.is_set():
        print("\nWaiting for the program that is being compiled; Ctrl-C (again) ends at once.", file=sys.stderr)
    try:
        # not with `join`: once it is interrupted, Python 3.11 takes the thread for ended
        idle.wait()
    except KeyboardInterrupt:
        if stopping:
            print(file=sys.stderr, flush=True)
            os._exit(130)
        _wait(idle, stopping=True)
        raise
