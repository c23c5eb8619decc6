"""The stream by itself; test_logging.py has its behaviour in the server."""

import subprocess
import sys

from tests.support.servers import ROOT

# 1,000 lines, more than a pipe holds, and the end of the process.
PROGRAM = """
from totoro.observability.log_stream import LogStream

stream = LogStream(1)
for number in range(1000):
    stream.write(f"{number:0500}\\n")
"""


def test_lines_that_wait_when_the_process_ends_are_written() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, check=True, capture_output=True, timeout=60
    )

    assert list(map(int, ended.stdout.splitlines())) == list(range(1000))
    assert ended.stderr == b""
