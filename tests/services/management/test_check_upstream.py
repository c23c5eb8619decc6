import json
from io import StringIO

import pytest
from django.core.management import call_command

from fake_ghibli import FakeGhibli
from tests.services.management.commands import error_line
from tests.support.servers import manage


@pytest.fixture
def correct(upstream: FakeGhibli) -> FakeGhibli:
    """A fake Ghibli API whose data has no defects."""
    film = {**upstream.data["films"][0], "people": [], "locations": [], "vehicles": []}
    person = {**upstream.data["people"][0], "films": []}
    upstream.data["films"], upstream.data["people"] = [film], [person]  # type: ignore[index]
    return upstream


def check(*arguments: str) -> tuple[int, str]:
    """Return the exit status and the output."""
    out = StringIO()
    try:
        call_command("check_upstream", *arguments, stdout=out)
    except SystemExit as end:
        return int(end.code or 0), out.getvalue()
    return 0, out.getvalue()


def test_exits_with_0_without_defects(correct: FakeGhibli) -> None:
    status, output = check()

    assert status == 0
    assert output.startswith("0 defects as of 20")
    assert output.endswith(" UTC.\n")


def test_prints_every_defect_of_the_real_data(upstream: FakeGhibli) -> None:
    status, output = check()

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


def test_prints_json(upstream: FakeGhibli) -> None:
    status, output = check("--json")

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


def test_prints_json_without_defects(correct: FakeGhibli) -> None:
    status, output = check("--json")

    assert status == 0
    assert json.loads(output).items() >= {"counts": {}, "defects": []}.items()


def test_prints_only_a_summary_at_verbosity_0(upstream: FakeGhibli) -> None:
    status, output = check("--verbosity", "0")

    assert status == 1
    assert output.startswith("100 defects as of ")
    assert output.count("\n") == 1


def test_shortens_long_values_and_replaces_control_characters(correct: FakeGhibli) -> None:
    correct.data["people"][0]["species"] = "\x1b[2J" + "x" * 99

    _, output = check()

    assert f"species  ?[2J{'x' * 85}…\n" in output


@pytest.mark.parametrize("films", [{}, [{}], []])
def test_unusable_data_is_a_defect(correct: FakeGhibli, films: object) -> None:
    correct.data["films"] = films  # type: ignore[index]

    status, output = check()

    assert status == 1
    assert output.startswith("unusable: Totoro refuses the data and serves older data (1)\n")


def test_exits_with_1_if_there_are_defects(environment: dict[str, str]) -> None:
    process = manage("check_upstream", "--json", environment=environment, check=False)

    assert process.returncode == 1
    assert process.stderr == ""
    assert len(json.loads(process.stdout)["defects"]) == 100


def test_exits_with_2_and_one_line_if_the_ghibli_api_fails(
    upstream: FakeGhibli, environment: dict[str, str]
) -> None:
    upstream.faults.status = 500

    message = error_line(environment, "check_upstream", status=2)

    assert message == "The Ghibli API failed (upstream_5xx): the status is 500."
