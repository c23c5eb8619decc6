"""The filters as pure functions over the bundled catalogue, and all that follows from them."""

import pytest
from django.http import QueryDict

from movies.query.filters import FILTERS, fold
from movies.query.params import read_query
from services.catalogue import bundled, merge
from tests.support.servers import ROOT

FACTS = bundled.load()
MOVIES = merge.build(FACTS.films, FACTS.people).movies
# What is asked, and the titles that are found. Every filter has a row.
FOUND = [
    ("search=kondo", ["Whisper of the Heart"]),
    ("search=KONDŌ", ["Whisper of the Heart"]),
    ("search=muta", ["Whisper of the Heart", "The Cat Returns"]),
    ("search=miyazaki totoro", ["My Neighbor Totoro"]),
    ("search=もののけ", ["Princess Mononoke"]),
    ("search=tenku", ["Castle in the Sky"]),
    ("search=gregoire", ["The Red Turtle"]),
    ("search=nothing at all", []),
    ("title=neighbor", ["My Neighbor Totoro", "My Neighbors the Yamadas"]),
    ("title=kurenai", ["Porco Rosso"]),
    ("director=goro", ["Tales from Earthsea", "From Up on Poppy Hill", "Earwig and the Witch"]),
    ("director=michael", ["The Red Turtle"]),
    ("producer=hara", ["Grave of the Fireflies"]),
    ("producer=maraval", ["The Red Turtle"]),
    ("person=totoro", ["My Neighbor Totoro"]),
    ("person=baron", ["Whisper of the Heart", "The Cat Returns"]),
    ("release_date=1988", ["Grave of the Fireflies", "My Neighbor Totoro"]),
    ("release_date_min=2016", ["The Red Turtle", "Earwig and the Witch"]),
    ("release_date_max=1986", ["Castle in the Sky"]),
    (
        "release_date_min=1989&release_date_max=1991",
        ["Kiki's Delivery Service", "Only Yesterday"],
    ),
    ("rt_score_min=98", ["Only Yesterday", "The Tale of the Princess Kaguya"]),
    ("director=miyazaki&rt_score_min=97", ["Spirited Away"]),
    ("search=&title=&ordering=&release_date=1986", ["Castle in the Sky"]),
]


def titles(text: str) -> list[str]:
    return [movie.title for movie in read_query(QueryDict(text)).select(MOVIES)]


@pytest.mark.parametrize(("asked", "expected"), FOUND)
def test_a_filter_finds_what_it_says(asked: str, expected: list[str]) -> None:
    assert titles(asked) == expected


def test_every_filter_is_tested() -> None:
    tested = {name for asked, _ in FOUND for name in QueryDict(asked)}

    assert {each.name for each in FILTERS} - tested == set()


def test_every_filter_has_its_own_name_label_and_help() -> None:
    for texts in zip(*((each.name, each.label, each.help_text) for each in FILTERS), strict=True):
        assert all(texts)
        assert len(set(texts)) == len(FILTERS)


def test_the_readme_describes_every_filter() -> None:
    rows = [f"| `{each.name}` | {each.help_text} |" for each in FILTERS]

    assert [row for row in rows if row not in (ROOT / "README.md").read_text().splitlines()] == []


def test_accents_are_folded_and_sounds_are_not() -> None:
    assert fold("Kondō") == fold("KONDO")
    assert fold("Straße") == fold("STRASSE")
    assert fold("ｶﾞ") == fold("ガ")
    assert fold("か") != fold("が")
