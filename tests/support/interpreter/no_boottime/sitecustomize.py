"""A Python without CLOCK_BOOTTIME, as on macOS: for servers under test, by PYTHONPATH."""

import time

if hasattr(time, "CLOCK_BOOTTIME"):
    del time.CLOCK_BOOTTIME
