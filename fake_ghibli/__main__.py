"""python -m fake_ghibli: the fake Ghibli API as a program of its own."""

import argparse
import json
import signal
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

from fake_ghibli.answers import Collections
from fake_ghibli.control import control
from fake_ghibli.faults import Faults
from fake_ghibli.server import FakeGhibli


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m fake_ghibli", description="A fake Ghibli API.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=3900, help="0 takes any free one")
    parser.add_argument("--data", type=Path, metavar="FILE", help="JSON: lists by their names")
    parser.add_argument("--control", type=int, metavar="PORT", help="faults at run time")
    parser.add_argument("--delay", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--status", type=int, metavar="CODE", help="answer all with this and HTML")
    parser.add_argument("--reset", action="store_true", help="cut connections amid the body")
    parser.add_argument("--hang", action="store_true", help="never answer")
    parser.add_argument("--stamp", action="store_true", help="time of answer as description")
    return parser.parse_args()


def faults_of(given: argparse.Namespace) -> Faults:
    faults = Faults()
    faults.set({name: getattr(given, name) for name in vars(faults)})
    return faults


def data_in(file: Path) -> Collections:
    told = json.loads(file.read_text("utf-8"))
    if not isinstance(told, dict):
        raise ValueError(f"{file} holds no JSON object.")
    return {name: items for name, items in told.items() if isinstance(items, list)}


def serve(given: argparse.Namespace, stop: threading.Event) -> None:
    data = data_in(given.data) if given.data else None
    upstream = FakeGhibli(host=given.host, port=given.port, data=data, faults=faults_of(given))
    with ExitStack() as ports:
        ports.enter_context(upstream)
        if given.control is not None:
            panel = ports.enter_context(control(upstream, given.host, given.control))
        print(f"listening on {upstream.url}", flush=True)
        if given.control is not None:
            print(f"control on {panel.url}", flush=True)
        stop.wait()


def main() -> None:
    stop = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: stop.set())
    given = arguments()
    try:
        serve(given, stop)
    except (OSError, ValueError) as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
