"""The two clocks of Totoro, in one place so that tests can replace them.

`wall` is the time of day and may be set; `boot` only counts on, also while the machine sleeps, and
serves for durations and deadlines.
"""

import time
from datetime import UTC, datetime

# Two readings this close (seconds) count as one instant; a thread that loses the processor between
# them reads again.
CLOSE = 0.000_1
TRIES = 10
# Linux' monotonic clock stops while the machine sleeps; macOS has no CLOCK_BOOTTIME, but there
# CLOCK_MONOTONIC counts on (clock_gettime(3)).
BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock:
    def boot(self) -> float:
        """Return the seconds since the machine started."""
        return time.clock_gettime(BOOT)

    def boot_us(self) -> int:
        """Return the same in whole microseconds, which can be added without rounding."""
        return int(self.boot() * 1_000_000)

    def wall(self) -> datetime:
        return datetime.now(UTC)

    def both(self) -> tuple[float, datetime]:
        """Return `boot` and `wall` of one instant, to map times of one clock to the other."""
        readings = []
        for _ in range(TRIES):
            before, wall, after = self.boot(), self.wall(), self.boot()
            readings.append((after - before, before, wall))
            if after - before < CLOSE:
                break
        _, boot, wall = min(readings)
        return boot, wall
