"""The two clocks of Totoro, which tests replace.

`wall` is the time of day, which may be set. `boot` counts seconds, also while the machine sleeps; use
it for durations and deadlines.
"""

import time
from datetime import UTC, datetime

# Readings of both clocks within this time count as one instant. A thread that is interrupted between
# them reads again.
INSTANT_SECONDS = 0.000_1
MAX_READINGS = 10
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

    def both(self) -> tuple[float, datetime]:
        """Return `boot` and `wall` of one instant, to map times of one clock to the other."""
        readings = []
        for _ in range(MAX_READINGS):
            before, wall, after = self.boot(), self.wall(), self.boot()
            readings.append((after - before, before, wall))
            if after - before < INSTANT_SECONDS:
                break
        _, boot, wall = min(readings)
        return boot, wall
