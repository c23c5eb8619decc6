import re

import pytest

from tests.support.servers import ROOT

FOLDER = ROOT / "benchmarks"
LOCKED = (FOLDER / "requirements.txt").read_text()


def declared() -> list[str]:
    lines = (FOLDER / "requirements.in").read_text().splitlines()
    return [re.split(r"\[", line)[0] for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("package", declared())
def test_a_peers_package_is_locked(package: str) -> None:
    assert re.search(rf"^{package}==[0-9]", LOCKED, re.MULTILINE)


def test_every_package_is_locked_by_version_and_hash() -> None:
    requirements = re.split(r"^(?=[a-z])", LOCKED, flags=re.MULTILINE)

    assert len(requirements) > len(declared())
    for requirement in filter(str.strip, requirements):
        assert re.match(
            r"[a-z0-9-]+==\S+( ; .*)? \\\n( +--hash=sha256:[0-9a-f]{64}( \\)?\n)+", requirement
        )


def test_the_lock_names_no_package_index() -> None:
    assert "://" not in LOCKED
    assert "--find-links" not in LOCKED
    assert "index-url" not in LOCKED
