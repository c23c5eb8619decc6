"""Says what is being measured: one line that changes on a terminal, else a line for each step."""

import shutil
import sys
import time


class Progress:
    def __init__(self) -> None:
        self._started = time.monotonic()
        self._is_terminal = sys.stderr.isatty()

    def __call__(self, step: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        line = f"{minutes:2}:{seconds:02}  {step}"
        if self._is_terminal:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\033[K{line[:width]}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._is_terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
