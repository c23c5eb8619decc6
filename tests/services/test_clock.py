"""The clocks of a server whose system lacks one of them."""

from pathlib import Path

from fake_ghibli import FakeGhibli
from tests.support.servers import HIDDEN_PACKAGES, ROOT, Totoro


def test_serves_on_a_system_without_a_clock_that_counts_through_suspend(tmp_path: Path) -> None:
    """macOS has no CLOCK_BOOTTIME."""
    without = ROOT / "tests" / "support" / "python_patches" / "no_boottime"
    with FakeGhibli() as upstream:
        server = Totoro(
            tmp_path, GHIBLI_API_BASE_URL=upstream.url, PYTHONPATH=f"{without}:{HIDDEN_PACKAGES}"
        )

        assert server.get("/movies/").status_code == 200
        assert server.terminate() == 0
