"""A soak test: two replicas with two workers each run under load, with random faults.

`make soak`, or `python -m tests.soak --minutes 10 --rate 300 --ttl 10`. It kills, stops and restarts
workers, Redis (Valkey), the database (PostgreSQL) and the upstream. At the end it prints what clients saw,
and exits with 1 if a promise was broken:

- no 5xx: at most two of upstream, Redis and database are down at once;
- while the upstream works, no response is older than the TTL;
- while Redis works, timestamps never run backwards.
"""

import argparse
import random
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.soak.faults import Soak
from tests.soak.verdict import Verdict


def main() -> None:
    parser = argparse.ArgumentParser("python -m tests.soak")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=300.0, help="requests a second")
    parser.add_argument("--ttl", type=int, default=10, help="CACHE_TTL")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    options = parser.parse_args()
    random.seed(options.seed)
    print(f"seed {options.seed}", flush=True)  # noqa: T201
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="totoro-soak-")))
        soak = Soak(stack, folder, options.ttl)
        soak.run(options.minutes, options.rate)
        verdict = Verdict(soak)
        verdict.report(options.minutes)
        if not verdict.passed:
            logs = folder.with_name(f"totoro-soak-{options.seed}.log")
            logs.write_text("".join(replica.log.read_text() for replica in soak.replicas))
            print(f"A promise was broken. Logs: {logs}")  # noqa: T201
    sys.exit(not verdict.passed)


main()
