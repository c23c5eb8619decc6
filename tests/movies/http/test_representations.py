"""Representations are rendered once, by one thread, and before the first request where that is possible."""

import threading
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.test.utils import override_script_prefix
from django.urls import get_script_prefix

from movies.http.representations import (
    MAX_BYTES,
    MAX_PREPARED,
    MAX_REPRESENTATIONS,
    Representation,
    Representations,
)
from movies.query.parameters import Query
from movies.views import render_movie
from services.catalogue.snapshot import Snapshot
from services.exceptions import MovieNotFound
from tests.support.fakes import EPOCH, make_snapshot

SNAPSHOT = make_snapshot()
NEXT = make_snapshot(EPOCH + timedelta(minutes=1))


class Renderer:
    """Renders what its arguments say, and notes for which snapshot and arguments it did."""

    def __init__(self, size: int = 2) -> None:
        self.size = size
        self.rendered: list[tuple[Any, ...]] = []

    def __call__(self, snapshot: Snapshot, *arguments: Hashable) -> Representation:
        self.rendered.append((snapshot, *arguments))
        return Representation(b"x" * self.size, "text/plain")


@pytest.fixture
def representations() -> Representations:
    return Representations()


def test_the_same_arguments_are_rendered_once(representations: Representations) -> None:
    render = Renderer()
    first, second = (representations.get(SNAPSHOT, render, "a", 1) for _ in range(2))

    assert first is second
    assert first.gzipped() is second.gzipped()
    assert render.rendered == [(SNAPSHOT, "a", 1)]


class Argument:
    """An argument that says when so many threads looked it up."""

    def __init__(self, threads: int) -> None:
        self._threads, self._seen = threads, set[int]()
        self.was_looked_up = threading.Event()

    def __hash__(self) -> int:
        self._seen.add(threading.get_ident())
        if len(self._seen) == self._threads:
            self.was_looked_up.set()
        return 1


def test_threads_that_request_the_same_wait_for_the_one_that_renders_it(
    representations: Representations,
) -> None:
    render, threads = Renderer(100_000), 8
    argument = Argument(threads)

    def render_when_all_wait(snapshot: Snapshot, argument: Argument) -> Representation:
        assert argument.was_looked_up.wait(5)
        return render(snapshot)

    def request(_: int) -> tuple[Representation, bytes]:
        representation = representations.get(SNAPSHOT, render_when_all_wait, argument)
        return representation, representation.gzipped()

    with ThreadPoolExecutor(threads) as pool:
        responses = list(pool.map(request, range(threads)))

    assert render.rendered == [(SNAPSHOT,)]
    assert len({(id(representation), id(gzipped)) for representation, gzipped in responses}) == 1


def test_a_representation_that_fails_is_rendered_again(representations: Representations) -> None:
    render = Renderer()

    def fail_once(snapshot: Snapshot) -> Representation:
        if not render.rendered:
            render(snapshot)
            raise ZeroDivisionError
        return render(snapshot)

    with pytest.raises(ZeroDivisionError):
        representations.get(SNAPSHOT, fail_once)
    assert representations.get(SNAPSHOT, fail_once)


@pytest.mark.parametrize(
    ("size", "number"), [(2, MAX_REPRESENTATIONS), (MAX_BYTES // 10, 8)], ids=["number", "bytes"]
)
def test_representations_are_bounded(
    size: int, number: int, representations: Representations
) -> None:
    render = Renderer(size)
    for key in range(number + 1):
        representations.get(SNAPSHOT, render, key)
    rendered = len(render.rendered)

    representations.get(SNAPSHOT, render, 1)
    assert len(render.rendered) == rendered
    representations.get(SNAPSHOT, render, 0)
    assert len(render.rendered) == rendered + 1


def test_a_new_snapshot_has_representations_of_its_own(representations: Representations) -> None:
    render = Renderer()
    for snapshot in (SNAPSHOT, NEXT, SNAPSHOT, NEXT):
        representations.get(snapshot, render)

    # Requests for both meet at the change from one to the other.
    assert render.rendered == [(SNAPSHOT,), (NEXT,)]


def test_what_was_requested_is_prepared_for_the_next_snapshot(
    representations: Representations,
) -> None:
    render = Renderer()
    representations.get(SNAPSHOT, render, "plain")
    representations.get(SNAPSHOT, render, "gzipped").gzipped()
    representations.prepare(NEXT)

    assert render.rendered[2:] == [(NEXT, "plain"), (NEXT, "gzipped")]
    assert not representations.get(NEXT, render, "plain").is_compressed
    assert representations.get(NEXT, render, "gzipped").is_compressed
    assert representations.get(SNAPSHOT, render, "plain")
    assert len(render.rendered) == 4


def test_what_is_no_longer_requested_is_no_longer_prepared(
    representations: Representations,
) -> None:
    render = Renderer()
    after_next = make_snapshot(EPOCH + timedelta(minutes=2))
    for key in ("once", "twice"):
        representations.get(SNAPSHOT, render, key)
    representations.prepare(NEXT)
    representations.get(NEXT, render, "twice")
    representations.prepare(after_next)

    assert [key for snapshot, key in render.rendered if snapshot is after_next] == ["twice"]


def test_a_snapshot_that_was_never_in_use_does_not_count(representations: Representations) -> None:
    render = Renderer()
    after_next = make_snapshot(EPOCH + timedelta(minutes=2))
    representations.get(SNAPSHOT, render)
    representations.prepare(NEXT)
    representations.prepare(after_next)

    assert render.rendered == [(SNAPSHOT,), (NEXT,), (after_next,)]


def test_the_most_requested_are_prepared(representations: Representations) -> None:
    render = Renderer()
    for key in range(MAX_PREPARED + 10):
        for _ in range(1 + key // 10):
            representations.get(SNAPSHOT, render, key)
    representations.prepare(NEXT)

    prepared = {key for snapshot, key in render.rendered if snapshot is NEXT}
    assert prepared == {*range(20, MAX_PREPARED + 10), *range(10, 20)}


def test_what_was_requested_already_is_not_prepared(representations: Representations) -> None:
    render = Renderer()
    representations.get(SNAPSHOT, render)
    representations.get(NEXT, render)
    representations.prepare(NEXT)

    assert render.rendered == [(SNAPSHOT,), (NEXT,)]


def test_links_have_the_prefix_under_which_they_were_requested(
    representations: Representations,
) -> None:
    def render(snapshot: Snapshot) -> Representation:
        return Representation(get_script_prefix().encode(), "text/plain")

    for prefix in ("/a/", "/b/"):
        with override_script_prefix(prefix):
            representations.get(SNAPSHOT, render)
    representations.prepare(NEXT)

    assert get_script_prefix() == "/"
    for prefix in ("/a/", "/b/"):
        with override_script_prefix(prefix):
            assert representations.get(NEXT, render).body == prefix.encode()


def test_a_movie_that_is_gone_prevents_no_preparation(representations: Representations) -> None:
    render = Renderer()
    representations.get(SNAPSHOT, render_movie, Query(), "ponyo")
    representations.get(SNAPSHOT, render)
    without = Snapshot(EPOCH, ())
    representations.prepare(without)

    assert render.rendered == [(SNAPSHOT,), (without,)]
    with pytest.raises(MovieNotFound):
        representations.get(without, render_movie, Query(), "ponyo")
