import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks.process_tree import cpu_seconds, pinned, pss_mb, rss_mb, tree
from tests.support.processes import proc

# Uses as many seconds of CPU time as its argument says.
BURN = """
import sys, time
while time.process_time() < float(sys.argv[1]): pass
"""
# Burns in a child that has ended and in one that keeps running. A thread has started both.
FAMILY = """
import subprocess, sys, threading
def start():
    subprocess.run([sys.executable, "-c", sys.argv[1], "0.3"], check=True)
    wait = sys.argv[1] + "print('done', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", wait, "0.3"]): pass
threading.Thread(target=start).start()
"""


@pytest.fixture(autouse=True)
def _needs_linux() -> None:
    proc(os.getpid())


@contextmanager
def family() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", FAMILY, BURN]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "done\n"
        yield process


def test_the_cpu_time_of_a_tree_has_that_of_its_running_and_its_ended_processes() -> None:
    with family() as process:
        # Starting three interpreters takes some time as well.
        assert 0.55 <= cpu_seconds([process.pid]) < 1.5


def test_the_cpu_times_of_trees_are_added() -> None:
    with family() as process:
        one = cpu_seconds([process.pid])
        assert cpu_seconds([process.pid, process.pid]) == pytest.approx(2 * one, abs=0.03)


def test_cpu_time_is_finer_than_a_tick_of_the_kernel() -> None:
    assert cpu_seconds([os.getpid()]) < cpu_seconds([os.getpid()])


def test_a_process_that_has_ended_takes_no_time() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()

    assert cpu_seconds([ended.pid]) == 0


def test_a_tree_has_the_children_that_any_thread_has_started() -> None:
    with family() as process:
        assert len(tree(process.pid)) == 2


def test_shared_memory_counts_once_in_the_pss_of_a_tree() -> None:
    with family() as process:
        pids = tree(process.pid)
        assert 5 < rss_mb(process.pid) < 100
        assert pss_mb(process.pid) < sum(map(rss_mb, pids))


def test_a_process_that_is_started_on_a_core_stays_there() -> None:
    core = min(os.sched_getaffinity(0))
    before = os.sched_getaffinity(0)
    code = "import os; print(os.sched_getaffinity(0))"
    with pinned(core):
        printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert printed.stdout.strip() == str({core})
    assert os.sched_getaffinity(0) == before
