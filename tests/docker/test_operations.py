"""What operators do: scale, upgrade, roll back, back up, restore, and make mistakes."""

import base64
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.docker.conftest import Measure
from tests.docker.stack import Stack, lines
from tests.docker.test_outages import PATHS, measured
from tests.support.env_mistakes import MISTAKES, Mistake
from tests.support.load_client import under_load
from tests.support.servers import wait_until


def test_requests_reach_all_replicas(stack: Stack, measure: Measure) -> None:
    stack.start(web=3)

    wait_until(lambda: stack.get(f"/movies/?t={time.monotonic()}").ok, what="served")
    with under_load([stack.url], connections=8, rate=100, total=600, paths=PATHS) as result:
        time.sleep(7)

    hits = []
    for index in (1, 2, 3):
        counts = [
            line
            for line in stack.metrics(index).splitlines()
            if line.startswith('totoro_cache_results_total{status="hit"}')
        ]
        hits.append(float(counts[0].split()[-1]))
    measure("hits of the replicas", hits)
    assert (result.failures, result.unsuccessful, result.backwards) == ([], [], [])
    assert min(hits) > 20


@pytest.mark.parametrize("replicas", [1, 2])
def test_an_upgrade_and_the_way_back_lose_no_request(
    stack: Stack, measure: Measure, replicas: int
) -> None:
    stack.start(web=replicas)
    before = set(stack.containers("web"))
    image = stack.inspect(next(iter(before)))["Image"]
    new = stack.folder / "movies" / "new.py"
    new.write_text(f"TIME = {time.time()}\n")  # another image

    with under_load([stack.url], connections=8, rate=50, paths=PATHS) as result:
        stack.make("docker-upgrade")
        upgraded = set(stack.containers("web"))
        upgraded_image = stack.inspect(next(iter(upgraded)))["Image"]
        stack.make("docker-rollback")
        rolled_back = set(stack.containers("web"))
        wait_until(lambda: len(result.responses) >= 2000, seconds=60, what="2,000 responses")
    new.unlink()

    measured(result, measure)
    assert (len(upgraded), len(rolled_back)) == (replicas, replicas)
    assert not before & upgraded
    assert not upgraded & rolled_back
    assert upgraded_image != image
    assert "new.py" not in stack.compose("exec", "-T", "web", "ls", "movies")
    assert {stack.inspect(container)["Image"] for container in rolled_back} == {image}
    assert (result.failures, result.unsuccessful, result.backwards) == ([], [], [])


def test_a_failed_upgrade_leaves_everything_as_it_was(stack: Stack, measure: Measure) -> None:
    before = stack.containers("web")
    file = stack.folder / "totoro" / "wsgi.py"
    good = file.read_text()
    file.write_text("raise RuntimeError('this version cannot serve')\n")

    with under_load([stack.url], connections=4, rate=20, paths=PATHS) as result:
        upgrade = stack.make("docker-upgrade", check=False)
    file.write_text(good)

    measure("message", lines(upgrade.stderr)[-2:])
    measured(result, measure)
    assert upgrade.returncode
    assert stack.containers("web") == before
    assert (result.failures, result.unsuccessful) == ([], [])
    assert stack.image_id("latest") == stack.inspect(before[0])["Image"]


def test_an_upgrade_leaves_no_container_of_an_old_image(stack: Stack) -> None:
    stack.start(web=2)
    stack.run("docker", "kill", stack.containers("web")[0])
    new = stack.folder / "movies" / "new.py"
    new.write_text(f"TIME = {time.time()}\n")

    stack.make("docker-upgrade")
    new.unlink()

    images = {
        stack.inspect(container)["Image"]
        for container in stack.compose("ps", "--all", "--quiet", "web").split()
    }
    assert images == {stack.image_id("latest")}


def test_a_rollback_starts_web_if_none_runs(stack: Stack) -> None:
    """The test before has upgraded."""
    previous = stack.image_id("previous")
    stack.kill("web")

    stack.make("docker-rollback")

    [web] = stack.containers("web")
    assert stack.inspect(web)["Image"] == previous
    assert stack.get(f"/movies/?rolled-back={time.time()}").status_code == 200


def test_an_interrupted_upgrade_changes_nothing(stack: Stack) -> None:
    before = stack.containers("web")
    command = ["make", "--no-print-directory", "docker-upgrade"]
    with subprocess.Popen(
        command, cwd=stack.folder, env=stack.environment, start_new_session=True
    ) as upgrade:
        wait_until(lambda: len(stack.containers("web")) > len(before), seconds=60, what="a new one")
        os.killpg(upgrade.pid, signal.SIGINT)  # as Ctrl-C does
        assert upgrade.wait(60)

    assert stack.containers("web") == before
    assert stack.get(f"/movies/?interrupted={time.time()}").status_code == 200


def test_two_upgrades_do_not_run_at_the_same_time(stack: Stack) -> None:
    lock = stack.folder / "var" / "upgrade.lock"
    lock.mkdir(parents=True)
    try:
        upgrade = stack.make("docker-upgrade", check=False)
    finally:
        lock.rmdir()

    assert "another upgrade is running" in upgrade.stderr


def test_a_backup_can_be_restored(stack: Stack, measure: Measure) -> None:
    count = "select count(*) from services_storedsnapshot"
    wait_until(lambda: stack.sql(count) != "0", what="a snapshot is saved")
    rows = stack.sql(count)

    stack.make("docker-backup")
    [dump] = (stack.folder / "backups").glob("*.dump")
    stack.sql("truncate services_storedsnapshot")
    stack.make(f"docker-restore FILE={dump.relative_to(stack.folder)}")

    measure("rows", rows)
    assert int(stack.sql(count)) >= int(rows)
    assert stack.get("/movies/?restored").status_code == 200


def test_a_dump_of_another_database_is_refused(stack: Stack) -> None:
    stack.compose("exec", "-T", "postgres", "createdb", "--username=totoro", "other")
    dump = "pg_dump --username=totoro --format=custom other | base64"
    content = stack.compose("exec", "-T", "postgres", "sh", "-c", dump)
    (stack.folder / "other.dump").write_bytes(base64.b64decode(content))

    restore = stack.make("docker-restore FILE=other.dump", check=False)
    stack.compose("exec", "-T", "postgres", "dropdb", "--username=totoro", "other")

    assert "is no complete dump of Totoro's database" in restore.stderr


def test_a_damaged_backup_changes_nothing(stack: Stack) -> None:
    stack.make("docker-backup FILE=backups/whole.dump")
    whole = stack.folder / "backups" / "whole.dump"
    part = stack.folder / "backups" / "part.dump"
    part.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    rows = stack.sql("select count(*) from services_storedsnapshot")

    restore = stack.make("docker-restore FILE=backups/part.dump", check=False)

    assert restore.returncode
    assert "Traceback" not in restore.stderr
    assert stack.sql("select count(*) from services_storedsnapshot") == rows


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_the_settings_is_one_line_and_changes_nothing(
    stack: Stack, tmp_path: Path, name: str
) -> None:
    mistake: Mistake = MISTAKES[name]
    before = stack.containers()
    saved = tmp_path / "saved"
    saved.mkdir()
    shutil.copy2(stack.folder / ".env", saved)
    shutil.copytree(stack.folder / "secrets", saved / "secrets")
    try:
        mistake.make(stack.folder)
        started = stack.make("docker-detached-totoro-server", check=False)
    finally:
        restore(saved, stack.folder)

    [line] = [line for line in lines(started.stderr) if line.startswith("totoro: ")]
    assert started.returncode
    assert mistake.line in line
    assert "Traceback" not in started.stdout + started.stderr
    assert stack.containers() == before
    assert stack.get("/movies/").status_code == 200


def restore(saved: Path, project: Path) -> None:
    for name in (".env", "secrets"):
        path = project / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        source = saved / name
        shutil.copytree(source, path) if source.is_dir() else shutil.copy2(source, path)


def test_starting_again_replaces_no_container(stack: Stack) -> None:
    # Not the demo's fake-ghibli, which has no rollback.
    services = ("nginx", "web", "redis", "postgres")
    before = stack.containers(*services)

    stack.make("docker-detached-totoro-server")

    assert stack.containers(*services) == before
