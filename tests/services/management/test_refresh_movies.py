import json
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.core.management import CommandError

from fake_ghibli import FakeGhibli
from services.models import StoredSnapshot
from tests.services.management.commands import error_line, run, without_database, without_log_events
from tests.support.servers import ROOT, Totoro, Valkey, free_port, manage, wait_until

LEASE = "totoro:1:{movies}:lease"


# A refresh reads the database in a thread, which a transaction around the test would lock out.
@pytest.mark.django_db(transaction=True)
class TestRefreshMovies:
    def test_compares_with_nothing_the_first_time(self, upstream: FakeGhibli) -> None:
        output = run("refresh_movies").splitlines()

        assert output[0] == f"Fetching from {upstream.url}/ …"
        assert output[1].startswith("22 movies and 57 people as of 20")
        assert output[-1] == "There is no earlier snapshot to compare it with."

    def test_stores_the_snapshot_in_the_database(self, upstream: FakeGhibli) -> None:
        run("refresh_movies")

        [row] = StoredSnapshot.objects.all()
        assert datetime.now(UTC) - row.timestamp < timedelta(seconds=10)

    def test_requests_each_list_once(self, upstream: FakeGhibli) -> None:
        run("refresh_movies")

        assert (upstream.count("films"), upstream.count("people")) == (1, 1)

    def test_reports_that_nothing_has_changed(self, upstream: FakeGhibli) -> None:
        run("refresh_movies")
        stored = StoredSnapshot.objects.get().timestamp

        output = run("refresh_movies").splitlines()

        assert output[-1] == f"Nothing has changed since {stored:%Y-%m-%d %H:%M:%S} UTC."
        assert StoredSnapshot.objects.get().timestamp > stored

    def test_reports_what_has_changed(self, upstream: FakeGhibli) -> None:
        run("refresh_movies")
        films, people = upstream.data["films"], upstream.data["people"]
        ponyo = next(film for film in films if film["title"] == "Ponyo")
        ponyo |= {"rt_score": "-1", "description": "x" * 99}
        haku = next(person for person in people if person["name"] == "Haku")
        sosuke = next(person for person in people if person["name"] == "Sosuke")
        sosuke |= {"age": "6", "films": [films[0]["url"]]}
        films[-1] |= {"id": "new", "title": "New"}
        people.remove(haku)

        output = run("refresh_movies").splitlines()

        start = next(n for n, line in enumerate(output) if line.startswith("Changed since "))
        changed = "\n".join(output[start + 1 :])
        assert (
            "movies: 1 added, 1 removed, 3 changed\n  + New\n  - Earwig and the Witch\n" in changed
        )
        assert "  ~ Castle in the Sky\n      people: + Sosuke\n" in changed
        assert "  ~ Spirited Away\n      people: - Haku\n" in changed
        assert '  ~ Ponyo\n      description: "A small fish with' in changed
        assert f"… → '{'x' * 58}…\n      rt_score: '92' → '-1'\n      people: - Sosuke\n" in changed
        assert "people: 7 removed, 1 changed\n  - Haku\n" in changed
        link = films[0]["url"]
        assert f"  ~ Sosuke\n      age: '5' → '6'\n      films: + {link}, - " in changed

    def test_prints_all_of_a_long_text_with_verbosity_2(self, upstream: FakeGhibli) -> None:
        run("refresh_movies")
        upstream.data["films"][0]["description"] = "x" * 99

        assert "x" * 99 in run("refresh_movies", "--verbosity", "2")

    def test_reports_that_only_the_order_has_changed(self, upstream: FakeGhibli) -> None:
        run("refresh_movies")
        upstream.data["films"].reverse()

        assert run("refresh_movies").splitlines()[-1] == "  the order of the movies"

    def test_reports_people_in_another_order_as_a_change_of_their_movie(
        self, upstream: FakeGhibli
    ) -> None:
        run("refresh_movies")
        upstream.data["people"].reverse()

        assert "  ~ Princess Mononoke\n      people: in another order\n" in run("refresh_movies")

    def test_prints_no_control_characters(self, upstream: FakeGhibli) -> None:
        run("refresh_movies")
        upstream.data["films"][-1] |= {"id": "new", "title": "\x1b[2JNew\nest"}

        assert "  + ?[2JNew?est\n" in run("refresh_movies")

    def test_prints_nothing_with_verbosity_0(self, upstream: FakeGhibli) -> None:
        assert run("refresh_movies", "--verbosity", "0") == ""
        assert StoredSnapshot.objects.count() == 1

    @pytest.mark.parametrize("films", [[], [{"id": "1"}], {}])
    def test_does_not_store_invalid_data(self, upstream: FakeGhibli, films: object) -> None:
        run("refresh_movies")
        upstream.data["films"] = films  # type: ignore[index]

        with pytest.raises(CommandError, match="The Ghibli API failed"):
            run("refresh_movies")

        [row] = StoredSnapshot.objects.all()
        assert "Ponyo" in row.body


class TestRefreshMoviesWithRedis:
    def test_an_outage_is_one_line_and_a_backoff_for_all_workers(
        self, upstream: FakeGhibli, environment: dict[str, str], valkey: Valkey
    ) -> None:
        upstream.faults.status = 500

        first = error_line(environment, "refresh_movies")
        second = error_line(environment, "refresh_movies")

        assert first.startswith(
            "The Ghibli API failed (upstream_5xx): the status is 500. Nobody refreshes for"
        )
        assert second.startswith("The last refresh failed (upstream_5xx): nobody refreshes")
        # One refresh: the request that fails first cancels the other.
        assert 1 <= len(upstream.requests) <= 2
        assert not valkey.client.exists(LEASE)

    def test_does_not_refresh_while_another_worker_does(
        self, upstream: FakeGhibli, environment: dict[str, str], valkey: Valkey
    ) -> None:
        valkey.client.set(LEASE, "another", px=5000)

        why = error_line(environment, "refresh_movies")

        assert why == "Another worker is refreshing."
        assert upstream.requests == []
        assert valkey.client.get(LEASE) == b"another"

    def test_does_not_replace_an_entry_that_awaits_its_activation(
        self, upstream: FakeGhibli, environment: dict[str, str]
    ) -> None:
        current = manage("refresh_movies", environment=environment)
        following = manage("refresh_movies", environment=environment)
        why = error_line(environment, "refresh_movies")

        assert "\nIt is in use.\n" in current.stdout
        assert "\nIt activates in 5" in following.stdout
        assert why.startswith("The next entry activates in 5")
        assert upstream.count("films") == 2

    def test_without_a_database_compares_with_the_snapshot_in_redis(
        self, upstream: FakeGhibli, environment: dict[str, str], valkey: Valkey
    ) -> None:
        away = {**without_database(environment), "CACHE_TTL": "1"}
        manage("refresh_movies", environment=away)
        end = json.loads(valkey.client.get("totoro:1:{movies}:state"))["current"]["expires_at"]  # type: ignore[arg-type]
        wait_until(lambda: time.time_ns() // 1000 > end)

        process = manage("refresh_movies", environment=away)

        assert "\nNothing has changed since " in process.stdout
        [line] = without_log_events(process.stderr)
        assert line == "The database cannot be used: nothing is read or stored there."

    def test_without_redis_does_not_refresh(
        self, upstream: FakeGhibli, environment: dict[str, str]
    ) -> None:
        away = {**environment, "REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}

        why = error_line(away, "refresh_movies")

        assert why == "Redis does not answer: no worker would see the data."
        assert upstream.requests == []

    def test_without_redis_and_database_does_not_refresh(
        self, upstream: FakeGhibli, environment: dict[str, str]
    ) -> None:
        why = error_line({**without_database(environment), "REDIS_URL": ""}, "refresh_movies")

        assert why == "The database cannot be used: no worker would see the data."
        assert upstream.requests == []

    @pytest.fixture
    def waiting(
        self, upstream: FakeGhibli, environment: dict[str, str], valkey: Valkey
    ) -> subprocess.Popen[bytes]:
        """The command while it waits for the Ghibli API, for four seconds in all."""
        upstream.faults.delay = 4
        command = [sys.executable, "manage.py", "refresh_movies", "--verbosity", "0"]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stderr=subprocess.DEVNULL,
            # Whoever runs the tests in the background may have it ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        wait_until(lambda: bool(valkey.client.exists(LEASE)))
        return process

    def test_renews_its_lease_while_it_waits(
        self, waiting: subprocess.Popen[bytes], valkey: Valkey
    ) -> None:
        wait_until(lambda: 0 < valkey.client.pttl(LEASE) < 4000)

        wait_until(lambda: valkey.client.pttl(LEASE) > 4500)

        assert waiting.wait(20) == 0
        assert not valkey.client.exists(LEASE)

    def test_releases_its_lease_when_it_is_interrupted(
        self, waiting: subprocess.Popen[bytes], upstream: FakeGhibli, valkey: Valkey
    ) -> None:
        wait_until(lambda: len(upstream.requests) == 2)

        waiting.send_signal(signal.SIGINT)

        assert waiting.wait(20) != 0
        assert not valkey.client.exists(LEASE)

    def test_workers_activate_the_entry_when_theirs_expires(
        self,
        tmp_path: Path,
        upstream: FakeGhibli,
        environment: dict[str, str],
        request: pytest.FixtureRequest,
    ) -> None:
        server = Totoro(
            tmp_path,
            GHIBLI_API_BASE_URL=f"{upstream.url}/",
            REDIS_URL=environment["REDIS_URL"],
            CACHE_TTL=6,
            REFRESH_AHEAD=1,
        )
        request.addfinalizer(server.terminate)
        before = server.get("/movies/").json()
        upstream.data["films"][0]["title"] = "Laputa"

        output = manage("refresh_movies", environment={**environment, "CACHE_TTL": "6"}).stdout
        meanwhile = server.get("/movies/").json()
        upstream.faults.status = 500  # from now on no worker can refresh
        wait_until(lambda: server.get("/movies/").json() != before)
        after = server.get("/movies/").json()

        assert "\n      title: 'Castle in the Sky' → 'Laputa'\n" in output
        assert meanwhile == before
        assert after["api_data"][0]["title"] == "Laputa"
