"""The two clocks of Totoro, in one place so that tests can bring their own.

`wall` tells what time it is, may be set and may step. `boot` only ever counts seconds, through
suspend too; durations and deadlines come from it.
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
        return time.clock_gettime(BOOT)

    def wall(self) -> datetime:
        return datetime.now(UTC)

    def both(self) -> tuple[float, datetime]:
        """The two clocks at one instant, so that one can be reckoned from the other."""
        readings = []
        for _ in range(TRIES):
            before, wall, after = self.boot(), self.wall(), self.boot()
            readings.append((after - before, before, wall))
            if after - before < CLOSE:
                break
        _, boot, wall = min(readings)
        return boot, wall
