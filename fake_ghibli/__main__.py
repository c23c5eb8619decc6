"""The command line: python -m fake_ghibli."""

import argparse
import json
import signal
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

from fake_ghibli.control import control
from fake_ghibli.faults import Faults
from fake_ghibli.json_server import Collections
from fake_ghibli.server import FakeGhibli


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m fake_ghibli", description="A fake Ghibli API.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=3900, help="0 takes any free port")
    parser.add_argument("--data", type=Path, metavar="FILE", help="JSON object: lists by name")
    parser.add_argument(
        "--control", type=int, metavar="PORT", help="port to set faults at run time"
    )
    parser.add_argument("--delay", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--status", type=int, metavar="CODE", help="for all responses, with HTML")
    parser.add_argument("--reset", action="store_true", help="cut connections within the body")
    parser.add_argument("--hang", action="store_true", help="never respond")
    parser.add_argument("--stamp", action="store_true", help="current time as films' description")
    return parser.parse_args()


def read_data(file: Path) -> Collections:
    document = json.loads(file.read_text("utf-8"))
    if not isinstance(document, dict):
        raise ValueError(f"{file} does not contain a JSON object.")
    return {name: records for name, records in document.items() if isinstance(records, list)}


def serve(arguments: argparse.Namespace, stop: threading.Event) -> None:
    data = read_data(arguments.data) if arguments.data else None
    faults = Faults()
    faults.set({name: getattr(arguments, name) for name in vars(faults)})
    upstream = FakeGhibli(host=arguments.host, port=arguments.port, data=data, faults=faults)
    with ExitStack() as listeners:
        listeners.enter_context(upstream)
        lines = [f"listening on {upstream.url}"]
        if arguments.control is not None:
            listener = control(upstream, arguments.host, arguments.control)
            lines.append(f"control on {listeners.enter_context(listener).url}")
        print(*lines, sep="\n", flush=True)
        stop.wait()


def main() -> None:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    arguments = parse_arguments()
    try:
        serve(arguments, stop)
    except (OSError, ValueError) as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
