"""The two clocks of Totoro, which tests replace.

`wall` is the time of day, which may be set. `boot` counts seconds, also while the machine sleeps; use
it for durations and deadlines.
"""

import time
from datetime import UTC, datetime

# On Linux, CLOCK_MONOTONIC stops while the machine sleeps. macOS has no CLOCK_BOOTTIME, but its
# CLOCK_MONOTONIC does not stop (clock_gettime(3)).
BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock:
    def boot(self) -> float:
        """Return the seconds since the machine started."""
        return time.clock_gettime(BOOT)

    def boot_us(self) -> int:
        """Return the same in whole microseconds, which can be added without rounding."""
        return time.clock_gettime_ns(BOOT) // 1000

    def wall(self) -> datetime:
        return datetime.now(UTC)
