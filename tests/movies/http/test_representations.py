from movies.http.representations import (
    MAX_REPRESENTATIONS,
    Representation,
    RepresentationCache,
    SnapshotRepresentations,
)
from tests.support.fakes import make_snapshot


def render() -> Representation:
    return Representation(b"{}", "application/json")


def test_each_key_is_rendered_once() -> None:
    representations = SnapshotRepresentations().of(make_snapshot())
    rendered = []

    def render_once() -> Representation:
        rendered.append(render())
        return rendered[-1]

    first, second = (representations.get("key", render_once) for _ in range(2))
    assert first is second
    assert first.gzipped is second.gzipped
    assert len(rendered) == 1


def test_the_number_of_representations_is_bounded() -> None:
    representations = RepresentationCache()
    for key in range(MAX_REPRESENTATIONS + 10):
        representations.get(key, render)

    assert len(representations._representations) == MAX_REPRESENTATIONS


def test_the_least_recently_used_representation_is_evicted() -> None:
    representations = RepresentationCache()
    used, unused = representations.get("used", render), representations.get("unused", render)
    for key in range(MAX_REPRESENTATIONS - 1):
        representations.get("used", render)
        representations.get(key, render)

    assert representations.get("used", render) is used
    assert representations.get("unused", render) is not unused


def test_a_new_snapshot_has_representations_of_its_own() -> None:
    representations, snapshot = SnapshotRepresentations(), make_snapshot()

    assert representations.of(snapshot) is representations.of(snapshot)
    assert representations.of(make_snapshot()) is not representations.of(snapshot)
