from pathlib import Path

import pytest

from fake_ghibli import FakeGhibli
from tests.support.servers import Valkey, clean_environment, migrated_database


@pytest.fixture
def environment(tmp_path: Path, upstream: FakeGhibli, valkey: Valkey) -> dict[str, str]:
    """The environment of a command in a process of its own, with Redis and a database."""
    database = tmp_path / "totoro.sqlite3"
    database.write_bytes(migrated_database())
    return {
        **clean_environment(),
        "DJANGO_SECRET_KEY": "only-for-this-test",
        "GHIBLI_API_BASE_URL": f"{upstream.url}/",
        "REDIS_URL": valkey.url,
        "DATABASE_URL": f"sqlite:///{database}",
    }
