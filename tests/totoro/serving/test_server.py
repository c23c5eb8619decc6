"""How the server stops its workers."""

from granian.constants import Interfaces

from totoro.serving.server import RespawningServer


class EndedWorker:
    """A worker whose end granian notes late, as its thread that watches the worker may be slow."""

    idx = 0

    def __init__(self) -> None:
        self.checks = 0
        self.is_killed = False

    def terminate(self) -> None:
        pass

    def is_alive(self) -> bool:
        self.checks += 1
        return self.checks < 10

    def join(self, timeout: float | None = None) -> None:
        pass

    def kill(self) -> None:
        self.is_killed = True


def test_a_worker_whose_end_is_noted_late_is_not_killed() -> None:
    server = RespawningServer("totoro.wsgi", interface=Interfaces.WSGI, workers_kill_timeout=30)
    worker = EndedWorker()
    server.wrks = [worker]  # type: ignore[list-item]

    server._stop_workers()

    assert not worker.is_killed
