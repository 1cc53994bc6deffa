import threading

import pytest

from metatower.training.beside import beside


def test_jobs_are_done_in_their_order_beside_the_context_which_waits_for_the_last():
    done, met = [], threading.Barrier(2, timeout=20)

    def meets():
        met.wait()
        done.append("met")

    with beside(meets, lambda: done.append("second")):
        met.wait()  # would break if the job waited for the context
    assert done == ["met", "second"]


def test_a_job_that_fails_leaves_the_others_and_the_context_alone():
    done = []
    with beside(lambda: 1 / 0, lambda: done.append(1)):
        done.append(0)
    assert sorted(done) == [0, 1]


def test_after_a_failure_inside_no_further_job_is_begun():
    begun, go, done = threading.Event(), threading.Event(), []

    def first():
        begun.set()
        assert go.wait(20)

    def interrupted():
        with beside(first, lambda: done.append("never")):
            assert begun.wait(20)
            threading.Timer(0.2, go.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not done
