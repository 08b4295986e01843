from __future__ import annotations

import os
import threading
import time

import pytest

from captum_advise._core import layer_pass
from captum_advise.evaluation.methods import attention


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks")
@pytest.mark.parametrize("module", [layer_pass, attention])
def test_a_process_forked_while_a_thread_explains(module):
    lock, holds = module._one_at_a_time, threading.Event()

    def explain():
        with lock:
            holds.set()
            time.sleep(0.5)

    thread = threading.Thread(target=explain)
    thread.start()
    holds.wait()
    child = os.fork()
    if child == 0:
        os._exit(0 if lock.acquire(timeout=5) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    thread.join()
    assert lock.acquire(timeout=5)
    lock.release()
