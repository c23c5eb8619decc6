"""A Python without CLOCK_BOOTTIME, as on macOS. For servers under test, through PYTHONPATH."""

import time

if hasattr(time, "CLOCK_BOOTTIME"):
    del time.CLOCK_BOOTTIME
