from movies.http.representations import (
    MAX_REPRESENTATIONS,
    Representation,
    SnapshotRepresentations,
)
from services.catalogue.snapshot import Snapshot
from tests.support.fakes import make_snapshot

SNAPSHOT = make_snapshot()


def render(snapshot: Snapshot, *arguments: object) -> Representation:
    return Representation(b"{}", "application/json")


def test_the_same_arguments_are_rendered_once() -> None:
    representations = SnapshotRepresentations()
    rendered = []

    def render_once(snapshot: Snapshot, *arguments: object) -> Representation:
        rendered.append((snapshot, *arguments))
        return render(snapshot)

    first, second = (representations.get(SNAPSHOT, render_once, "a", 1) for _ in range(2))
    assert first is second
    assert first.gzipped is second.gzipped
    assert rendered == [(SNAPSHOT, "a", 1)]


def test_the_number_of_representations_is_bounded() -> None:
    representations = SnapshotRepresentations()
    first, second, *_ = (
        representations.get(SNAPSHOT, render, key) for key in range(MAX_REPRESENTATIONS + 1)
    )

    assert representations.get(SNAPSHOT, render, 1) is second
    assert representations.get(SNAPSHOT, render, 0) is not first


def test_the_least_recently_used_representation_is_evicted() -> None:
    representations = SnapshotRepresentations()
    used, unused = (representations.get(SNAPSHOT, render, key) for key in ("used", "unused"))
    for key in range(MAX_REPRESENTATIONS - 1):
        representations.get(SNAPSHOT, render, "used")
        representations.get(SNAPSHOT, render, key)

    assert representations.get(SNAPSHOT, render, "used") is used
    assert representations.get(SNAPSHOT, render, "unused") is not unused


def test_a_new_snapshot_has_representations_of_its_own() -> None:
    representations = SnapshotRepresentations()

    first, again = (representations.get(SNAPSHOT, render) for _ in range(2))
    assert first is again
    assert representations.get(make_snapshot(), render) is not first
