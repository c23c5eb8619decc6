"""The management commands: what they do, what they say, how they end."""

import json
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from pytest_django.fixtures import Settings

from fake_ghibli import FakeGhibli
from services.catalogue import bundled
from services.models import StoredSnapshot
from services.persistence import DatabaseStore
from tests.support.fakes import EPOCH, make_snapshot
from tests.support.servers import (
    ROOT,
    Totoro,
    Valkey,
    clean_environment,
    free_port,
    manage,
    migrated_database,
    wait_until,
)

LEASE = "totoro:1:{movies}:lease"


def run(name: str, *arguments: str) -> str:
    """What a command says, in this process."""
    out = StringIO()
    call_command(name, *arguments, stdout=out)
    return out.getvalue()


@pytest.fixture
def environment(tmp_path: Path, upstream: FakeGhibli, valkey: Valkey) -> dict[str, str]:
    """For a command in a process of its own, with Redis and a database."""
    database = tmp_path / "totoro.sqlite3"
    database.write_bytes(migrated_database())
    return {
        **clean_environment(),
        "DJANGO_SECRET_KEY": "only-for-this-test",
        "GHIBLI_API_BASE_URL": f"{upstream.url}/",
        "REDIS_URL": valkey.url,
        "DATABASE_URL": f"sqlite:///{database}",
    }


def fails(environment: dict[str, str], *command: str, status: int = 1) -> str:
    """The one line in which it says why."""
    process = manage(*command, environment=environment, check=False)

    assert process.returncode == status
    [line] = said_to_people(process.stderr)
    assert line.startswith("CommandError: ")
    return line.removeprefix("CommandError: ")


def said_to_people(stderr: str) -> list[str]:
    """Lines that are not of the log."""
    return [line for line in stderr.splitlines() if not line.startswith("{")]


def without_database(environment: dict[str, str]) -> dict[str, str]:
    url = f"postgresql://totoro@127.0.0.1:{free_port()}/totoro"
    return {**environment, "DATABASE_URL": url}


# A refresh reads the database in a thread, which a transaction around the test would lock out.
@pytest.mark.django_db(transaction=True)
class TestRefreshMovies:
    def test_the_first_time_there_is_nothing_to_compare_with(self, upstream: FakeGhibli) -> None:
        said = run("refresh_movies").splitlines()

        assert said[0] == f"Asking {upstream.url}/ …"
        assert said[1].startswith("22 movies and 57 people as of 20")
        assert said[-1] == "There is no earlier snapshot to compare it with."

    def test_it_keeps_the_answer(self, upstream: FakeGhibli) -> None:
        run("refresh_movies")

        [row] = StoredSnapshot.objects.all()
        assert datetime.now(UTC) - row.timestamp < timedelta(seconds=10)

    def test_it_asks_the_ghibli_api_once_for_each_list(self, upstream: FakeGhibli) -> None:
        run("refresh_movies")

        assert (upstream.count("films"), upstream.count("people")) == (1, 1)

    def test_it_says_that_nothing_has_changed(self, upstream: FakeGhibli) -> None:
        run("refresh_movies")
        kept = StoredSnapshot.objects.get().timestamp

        said = run("refresh_movies").splitlines()

        assert said[-1] == f"Nothing has changed since {kept:%Y-%m-%d %H:%M:%S} UTC."
        assert StoredSnapshot.objects.get().timestamp > kept

    def test_it_says_what_has_changed(self, upstream: FakeGhibli) -> None:
        run("refresh_movies")
        films, people = upstream.data["films"], upstream.data["people"]
        ponyo = next(film for film in films if film["title"] == "Ponyo")
        ponyo |= {"rt_score": "-1", "description": "x" * 99}
        haku = next(person for person in people if person["name"] == "Haku")
        sosuke = next(person for person in people if person["name"] == "Sosuke")
        sosuke |= {"age": "6", "films": [films[0]["url"]]}
        films[-1] |= {"id": "new", "title": "New"}
        people.remove(haku)

        said = run("refresh_movies").splitlines()

        start = next(n for n, line in enumerate(said) if line.startswith("Changed since "))
        changed = "\n".join(said[start + 1 :])
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

    def test_it_says_all_of_a_long_text_if_asked(self, upstream: FakeGhibli) -> None:
        run("refresh_movies")
        upstream.data["films"][0]["description"] = "x" * 99

        assert "x" * 99 in run("refresh_movies", "--verbosity", "2")

    def test_it_says_that_only_the_order_has_changed(self, upstream: FakeGhibli) -> None:
        run("refresh_movies")
        upstream.data["films"].reverse()

        assert run("refresh_movies").splitlines()[-1] == "  the order of the movies"

    def test_people_in_another_order_are_a_change_of_their_movie(
        self, upstream: FakeGhibli
    ) -> None:
        run("refresh_movies")
        upstream.data["people"].reverse()

        assert "  ~ Princess Mononoke\n      people: in another order\n" in run("refresh_movies")

    def test_a_terminal_is_not_told_what_it_would_obey(self, upstream: FakeGhibli) -> None:
        run("refresh_movies")
        upstream.data["films"][-1] |= {"id": "new", "title": "\x1b[2JNew\nest"}

        assert "  + ?[2JNew?est\n" in run("refresh_movies")

    def test_it_can_be_quiet(self, upstream: FakeGhibli) -> None:
        assert run("refresh_movies", "--verbosity", "0") == ""
        assert StoredSnapshot.objects.count() == 1

    @pytest.mark.parametrize("films", [[], [{"id": "1"}], {}])
    def test_what_cannot_be_used_is_not_kept(self, upstream: FakeGhibli, films: object) -> None:
        run("refresh_movies")
        upstream.data["films"] = films  # type: ignore[index]

        with pytest.raises(CommandError, match="The Ghibli API failed"):
            run("refresh_movies")

        [row] = StoredSnapshot.objects.all()
        assert "Ponyo" in row.body


class TestRefreshMoviesForAll:
    def test_an_outage_is_one_line_and_everybodys_cool_down(
        self, upstream: FakeGhibli, environment: dict[str, str], valkey: Valkey
    ) -> None:
        upstream.faults.status = 500

        first = fails(environment, "refresh_movies")
        second = fails(environment, "refresh_movies")

        assert first.startswith(
            "The Ghibli API failed (upstream_5xx): the status is 500. Nobody asks it again"
        )
        assert second.startswith("The last refresh failed (upstream_5xx): nobody asks")
        # One flight; the request that fails first cuts the other off.
        assert 1 <= len(upstream.requests) <= 2
        assert not valkey.client.exists(LEASE)

    def test_while_another_worker_asks_it_does_not(
        self, upstream: FakeGhibli, environment: dict[str, str], valkey: Valkey
    ) -> None:
        valkey.client.set(LEASE, "another", px=5000)

        why = fails(environment, "refresh_movies")

        assert why == "Another worker asks the Ghibli API right now, or just did."
        assert upstream.requests == []
        assert valkey.client.get(LEASE) == b"another"

    def test_an_answer_that_waits_for_its_time_is_not_replaced(
        self, upstream: FakeGhibli, environment: dict[str, str]
    ) -> None:
        live = manage("refresh_movies", environment=environment)
        staged = manage("refresh_movies", environment=environment)
        why = fails(environment, "refresh_movies")

        assert "\nIt is in use.\n" in live.stdout
        assert "\nIt activates in 5" in staged.stdout
        assert why.startswith("The next entry is there already and activates in 5")
        assert upstream.count("films") == 2

    def test_without_a_database_redis_knows_what_was_before(
        self, upstream: FakeGhibli, environment: dict[str, str], valkey: Valkey
    ) -> None:
        away = {**without_database(environment), "CACHE_TTL": "1"}
        manage("refresh_movies", environment=away)
        end = json.loads(valkey.client.get("totoro:1:{movies}:state"))["current"]["expires_at"]  # type: ignore[arg-type]
        wait_until(lambda: time.time_ns() // 1000 > end)

        process = manage("refresh_movies", environment=away)

        assert "\nNothing has changed since " in process.stdout
        [line] = said_to_people(process.stderr)
        assert line == "The database cannot be used: nothing is read or kept there."

    def test_without_redis_it_does_not_ask(
        self, upstream: FakeGhibli, environment: dict[str, str]
    ) -> None:
        away = {**environment, "REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}

        why = fails(away, "refresh_movies")

        assert why == "Redis does not answer, so the workers could not share the data."
        assert upstream.requests == []

    def test_without_redis_and_database_it_would_be_for_nobody(
        self, upstream: FakeGhibli, environment: dict[str, str]
    ) -> None:
        why = fails({**without_database(environment), "REDIS_URL": ""}, "refresh_movies")

        assert why == "The database cannot be used, and nobody else would see the data."
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

    def test_it_keeps_its_lease_as_long_as_it_waits(
        self, waiting: subprocess.Popen[bytes], valkey: Valkey
    ) -> None:
        wait_until(lambda: 0 < valkey.client.pttl(LEASE) < 4000)

        wait_until(lambda: valkey.client.pttl(LEASE) > 4500)

        assert waiting.wait(20) == 0
        assert not valkey.client.exists(LEASE)

    def test_it_gives_its_lease_back_when_it_is_interrupted(
        self, waiting: subprocess.Popen[bytes], upstream: FakeGhibli, valkey: Valkey
    ) -> None:
        wait_until(lambda: len(upstream.requests) == 2)

        waiting.send_signal(signal.SIGINT)

        assert waiting.wait(20) != 0
        assert not valkey.client.exists(LEASE)

    def test_the_workers_take_the_answer_over_when_theirs_ends(
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

        said = manage("refresh_movies", environment={**environment, "CACHE_TTL": "6"}).stdout
        meanwhile = server.get("/movies/").json()
        upstream.faults.status = 500  # from now on a worker learns nothing of its own
        wait_until(lambda: server.get("/movies/").json() != before)
        after = server.get("/movies/").json()

        assert "\n      title: 'Castle in the Sky' → 'Laputa'\n" in said
        assert meanwhile == before
        assert after["api_data"][0]["title"] == "Laputa"


class TestCheckUpstream:
    @pytest.fixture
    def correct(self, upstream: FakeGhibli) -> FakeGhibli:
        """A fake Ghibli API whose data has no defects."""
        film = {**upstream.data["films"][0], "people": [], "locations": [], "vehicles": []}
        person = {**upstream.data["people"][0], "films": []}
        upstream.data["films"], upstream.data["people"] = [film], [person]  # type: ignore[index]
        return upstream

    def check(self, *arguments: str) -> tuple[int, str]:
        """Return the exit status and the output."""
        out = StringIO()
        try:
            call_command("check_upstream", *arguments, stdout=out)
        except SystemExit as end:
            return int(end.code or 0), out.getvalue()
        return 0, out.getvalue()

    def test_exits_with_0_without_defects(self, correct: FakeGhibli) -> None:
        status, output = self.check()

        assert status == 0
        assert output.startswith("0 defects as of 20")
        assert output.endswith(" UTC.\n")

    def test_prints_every_defect_of_the_real_data(self, upstream: FakeGhibli) -> None:
        status, output = self.check()

        bare, one_sided, shared, foreign, sentinels, total, *_ = output.split("\n\n")
        assert status == 1
        assert bare.startswith(
            "bare link: a link to a whole collection instead of an object (63)\n"
            "  films   Castle in the Sky                locations  https://ghibliapi.herokuapp.com/"
        )
        assert one_sided.count("\n") == 8
        assert "\n  films  Spirited Away         people  1: Haku\n" in one_sided
        assert shared.count("\n") == 3
        assert foreign.count("\n") == 2
        assert "\n  people  Yakul                           age         'Unknown'\n" in sentinels
        assert total.startswith("100 defects as of 20")
        assert total.endswith(
            ": bare link 63, one sided 8, shared url 3, foreign url 2, sentinel 24.\n"
        )

    def test_prints_json(self, upstream: FakeGhibli) -> None:
        status, output = self.check("--json")

        report = json.loads(output)
        assert status == 1
        assert list(report) == ["timestamp", "counts", "defects"]
        assert report["counts"]["bare_link"] == 63
        assert sum(report["counts"].values()) == len(report["defects"]) == 100
        [jiji] = [defect for defect in report["defects"] if defect["name"] == "Jiji"]
        assert jiji == {
            "kind": "sentinel",
            "collection": "people",
            "id": next(one["id"] for one in upstream.data["people"] if one["name"] == "Jiji"),
            "name": "Jiji",
            "field": "age",
            "detail": "'NA'",
        }

    def test_prints_json_without_defects(self, correct: FakeGhibli) -> None:
        status, output = self.check("--json")

        assert status == 0
        assert json.loads(output).items() >= {"counts": {}, "defects": []}.items()

    def test_prints_only_a_summary_at_verbosity_0(self, upstream: FakeGhibli) -> None:
        status, output = self.check("--verbosity", "0")

        assert status == 1
        assert output.startswith("100 defects as of ")
        assert output.count("\n") == 1

    def test_shortens_long_values_and_replaces_control_characters(
        self, correct: FakeGhibli
    ) -> None:
        correct.data["people"][0]["species"] = "\x1b[2J" + "x" * 99

        _, output = self.check()

        assert f"species  ?[2J{'x' * 85}…\n" in output

    @pytest.mark.parametrize("films", [{}, [{}], []])
    def test_unusable_data_is_a_defect(self, correct: FakeGhibli, films: object) -> None:
        correct.data["films"] = films  # type: ignore[index]

        status, output = self.check()

        assert status == 1
        assert output.startswith("unusable: Totoro refuses the data and serves older data (1)\n")

    def test_exits_with_1_if_there_are_defects(self, environment: dict[str, str]) -> None:
        process = manage("check_upstream", "--json", environment=environment, check=False)

        assert process.returncode == 1
        assert process.stderr == ""
        assert len(json.loads(process.stdout)["defects"]) == 100

    def test_exits_with_2_and_one_line_if_the_ghibli_api_fails(
        self, upstream: FakeGhibli, environment: dict[str, str]
    ) -> None:
        upstream.faults.status = 500

        message = fails(environment, "check_upstream", status=2)

        assert message == "The Ghibli API failed (upstream_5xx): the status is 500."


def save_snapshots(*titles: str) -> None:
    for number, title in enumerate(titles):
        DatabaseStore().save(make_snapshot(EPOCH + timedelta(minutes=number), title))


@pytest.mark.django_db(transaction=True)
class TestSnapshots:
    def test_says_that_there_are_no_snapshots(self) -> None:
        assert run("snapshots") == "The database has no snapshots.\n"

    def test_lists_the_newest_first(self) -> None:
        save_snapshots("Ponyo", "Totoro")
        newest, oldest = StoredSnapshot.objects.all()

        heading, first, second = run("snapshots").splitlines()

        assert heading.split() == ["timestamp", "age", "movies", "people", "digest", "size"]
        assert first.startswith("2026-11-24T00:01:00+00:00  ")
        assert first.endswith(f"  1       1       {newest.digest[:12]}  0.3 KB")
        assert second.startswith("2026-11-24T00:00:00+00:00  ")
        assert second.endswith(f"  1       1       {oldest.digest[:12]}  0.3 KB")

    def test_prints_json(self) -> None:
        DatabaseStore().save(make_snapshot(datetime.now(UTC) - timedelta(hours=1)))
        [row] = StoredSnapshot.objects.all()

        [snapshot] = json.loads(run("snapshots", "--json"))["snapshots"]

        age: Any = snapshot.pop("age")
        assert 3600 <= age < 3700
        assert snapshot == {
            "timestamp": row.timestamp.isoformat(),
            "movies": 1,
            "people": 1,
            "digest": row.digest,
            "size": len(row.body.encode()),
        }

    @pytest.mark.parametrize("broken", [{"body": "[]"}, {"digest": "0" * 64}])
    def test_marks_damaged_snapshots(self, broken: dict[str, str]) -> None:
        save_snapshots("Ponyo", "Totoro")
        StoredSnapshot.objects.filter(pk=StoredSnapshot.objects.all()[1].pk).update(**broken)

        _, first, second = run("snapshots").splitlines()

        assert "damaged" not in first
        assert "  damaged  damaged  " in second

    def test_prunes_all_but_the_newest(self) -> None:
        save_snapshots("One", "Two", "Three")

        lines = run("snapshots", "--prune", "2").splitlines()

        assert lines[0] == "Deleted 1, 2 left."
        assert [row.timestamp.minute for row in StoredSnapshot.objects.all()] == [2, 1]

    def test_prints_the_number_of_deleted_snapshots_as_json(self) -> None:
        save_snapshots("One", "Two", "Three")

        report = json.loads(run("snapshots", "--prune", "1", "--json"))

        assert report["pruned"] == 2
        assert len(report["snapshots"]) == 1

    @pytest.mark.parametrize("number", ["0", "-1", "1.5", "two", "", "²"])
    def test_never_deletes_the_last_snapshot(self, number: str) -> None:
        save_snapshots("One")

        with pytest.raises(CommandError, match="must be a whole number, 1 or more"):
            run("snapshots", f"--prune={number}")

        assert StoredSnapshot.objects.count() == 1

    def test_fails_with_one_line_if_the_database_cannot_be_used(
        self, environment: dict[str, str]
    ) -> None:
        message = fails(without_database(environment), "snapshots")

        assert message.startswith("The database cannot be used: connection failed")


@pytest.mark.django_db(transaction=True)
class TestLoadCatalogue:
    def test_stores_the_bundled_catalogue_as_last_known_good(self) -> None:
        assert run("load_catalogue") == "Loaded 22 movies as of 2026-11-23.\n"

        snapshot = DatabaseStore().newest()
        assert snapshot
        assert (snapshot.timestamp, len(snapshot.movies)) == (bundled.load().timestamp, 22)

    def test_loads_nothing_if_there_is_a_snapshot(self) -> None:
        save_snapshots("Ponyo")

        output = run("load_catalogue")

        assert output == "The database has a snapshot already: nothing loaded.\n"
        assert StoredSnapshot.objects.count() == 1

    def test_a_damaged_snapshot_does_not_count(self) -> None:
        save_snapshots("Ponyo")
        StoredSnapshot.objects.update(digest="0" * 64)

        assert run("load_catalogue").startswith("Loaded 22 movies")

        snapshot = DatabaseStore().newest()
        assert snapshot
        assert len(snapshot.movies) == 22

    def test_warns_if_the_catalogue_is_too_old_to_be_served(self, settings: Settings) -> None:
        settings.STALE_IF_ERROR = 60
        stderr = StringIO()

        call_command("load_catalogue", stdout=StringIO(), stderr=stderr)

        assert "older than STALE_IF_ERROR allows (60 s)" in stderr.getvalue()

    def test_fails_with_one_line_if_the_database_cannot_be_used(
        self, environment: dict[str, str]
    ) -> None:
        message = fails(without_database(environment), "load_catalogue")

        assert message.startswith("The database cannot be used: connection failed")
