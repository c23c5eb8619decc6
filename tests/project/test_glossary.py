"""Code, tests and documents use one term per concept. This is the list of words that they avoid."""

import ast
import re
from collections.abc import Iterator

import pytest

from tests.support.servers import ROOT

# A regular expression, which ignores case, and what to write instead.
TERMS = {
    r"flights?|fl(y|ies|ew|ying)|ta(k(e|es|ing)|ook) off|landed|landings?": "refresh",
    r"crash(es|ed|ing)?": "fail, be killed, exit",
    r"held|stored answers?": "cache entry, current entry",
    r"goes live|went live|gone live": "be activated",
    r"staged|hand(s|ed|ing)?[ -]?overs?": "next entry, activation",
    r"the law|one[ -]minute law": "freshness guarantee",
    r"fence[sd]?": "fencing token",
    r"cool[ -]?downs?": "backoff",
    r"troubles?": "failure, error, fault, outage",
    r"kept|recall(s|ed|ing)?": "last known good; store, save",
    r"go(es|ing)? on|went on": "continue; stale-if-error",
    r"latch(es|ed)?": "circuit breaker",
    r"leaders?": "lease holder",
    r"process[ -]stores?": "in-memory store",
    r"renditions?|shel(f|ves)": "representation",
    r"ledgers?": "rate limit, quota, window",
    r"shrinkages?": "plausibility check",
    r"mend(s|ed|ing)?": "repair",
    r"stand[ -]?ins?": "fake",
    r"telemetry": "logs and metrics",
    r"told": "say, report, log",
    r"those who|by how they were come by|(was|were) come by": "a plain sentence",
}
# Words that may stay, by file: each is a quotation.
EXCEPTIONS = {
    # Descriptions of films.
    "services/catalogue/bundled.toml": {"flying", "flies"},
    # OpenTelemetry.
    "docs/monitoring.md": {"telemetry"},
    "totoro/observability/tracing.py": {"telemetry"},
    # granian's error message.
    "tests/faults/test_server_faults.py": {"crash"},
}
# History, which is not rewritten, and this list.
EXCLUDED = {"CHANGELOG.md", "tests/project/test_glossary.py"}
EXCLUDED_FOLDERS = ("services/migrations/",)
FOLDERS = (
    "services",
    "movies",
    "totoro",
    "benchmarks",
    "fake_ghibli",
    "tests",
    "docs",
    "deploy",
    "scripts",
    "requirements",
)
SUFFIXES = {
    ".py",
    ".md",
    ".html",
    ".css",
    ".js",
    ".sh",
    ".txt",
    ".json",
    ".toml",
    ".yml",
    ".yaml",
    ".template",
}

EVENTS = {
    "refresh_succeeded",
    "refresh_failed",
    "refresh_superseded",
    "refresh_error",  # a bug
    "request_error",  # a bug
    "outage_began",
    "outage_over",
    "lease_lost",
    "redis_error",
    "redis_value_invalid",
    "database_error",
    "database_row_invalid",
    "host_not_allowed",
    "environment_variable_unknown",
    "request",
    "log_lines_dropped",
    "server_started",
    "server_stopping",
    "server_stopped",
    "worker_started",
    "worker_exited",
}


def project_files() -> Iterator[str]:
    """Yield the text files of the project, relative to its root."""
    for folder in FOLDERS:
        for file in sorted((ROOT / folder).rglob("*")):
            if file.suffix in SUFFIXES and "__pycache__" not in file.parts:
                yield file.relative_to(ROOT).as_posix()
    for file in sorted(ROOT.iterdir()):
        if file.is_file() and (file.suffix in SUFFIXES or file.name in ("Makefile", "Dockerfile")):
            yield file.name


def words(text: str) -> str:
    """Split identifiers: `wait_for_flight` is `wait for flight`, and `KeptSnapshot` `Kept Snapshot`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text.replace("_", " "))


def avoided_words(text: str) -> Iterator[tuple[str, str]]:
    """Yield each avoided word of the text, in lower case, and what to write instead."""
    for pattern, instead in TERMS.items():
        for match in re.finditer(rf"\b(?:{pattern})\b", words(text), re.IGNORECASE):
            yield match[0].lower(), instead


FILES = [
    file
    for file in project_files()
    if file not in EXCLUDED and not file.startswith(EXCLUDED_FOLDERS)
]


@pytest.mark.parametrize("file", FILES)
def test_uses_the_terms_of_the_glossary(file: str) -> None:
    lines = [file, *(ROOT / file).read_text("utf-8").splitlines()]
    found = [
        f"{file}:{number}: “{word}”: write “{instead}”"
        for number, line in enumerate(lines)  # line 0 is the file's name
        for word, instead in avoided_words(line)
        if word not in EXCEPTIONS.get(file, set())
    ]

    if found:
        pytest.fail("\n".join(found), pytrace=False)


@pytest.mark.parametrize("file", EXCEPTIONS)
def test_every_exception_is_needed(file: str) -> None:
    text = (ROOT / file).read_text("utf-8")

    assert EXCEPTIONS[file] <= {word for word, _ in avoided_words(text)}


@pytest.mark.parametrize(
    "text",
    [
        "wait_for_flight",
        "class KeptSnapshot:",
        "COOL_DOWNS = (5,)",
        "a cool-down",
        "Stand-in",
        "Told.",
    ],
)
def test_finds_avoided_words_in_identifiers_and_text(text: str) -> None:
    assert len(list(avoided_words(text))) == 1


def test_does_not_find_words_within_other_words() -> None:
    assert list(avoided_words("fencing_token, island, keep, unkempt, sending, hold, stale")) == []


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Yield every call of a method or function in the code, with its dotted name."""
    for folder in ("services", "movies", "totoro"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                if isinstance(node, ast.Call):
                    yield ast.unparse(node.func), node


def test_log_events_are_those_of_the_glossary() -> None:
    events = [
        string_arguments(call)
        for name, call in calls()
        if re.fullmatch(r"(log|bugs)\.[a-z]+", name)
    ]

    assert all(len(event) == 1 for event in events), "an event is a literal, not an f-string"
    assert {event for [event] in events} == EVENTS


def string_arguments(call: ast.Call) -> list[str]:
    return [
        argument.value
        for argument in call.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    ]
