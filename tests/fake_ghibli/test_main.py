import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fake_ghibli.client import TIMEOUT, connect, receive
from tests.support.servers import ROOT


def run(*flags: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "fake_ghibli", "--port", "0", *flags],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def url(program: subprocess.Popen[str], name: str = "listening") -> str:
    assert program.stdout
    line = program.stdout.readline()
    assert re.fullmatch(rf"{name} on http://127\.0\.0\.1:[0-9]+\n", line)
    return str(line.split()[-1])


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_stops_cleanly_on_a_signal(signal_number: signal.Signals) -> None:
    program = run()
    connection = connect(url(program))
    connection.request("GET", "/films")
    assert len(receive(connection).json) == 22
    program.send_signal(signal_number)
    out, err = program.communicate(timeout=TIMEOUT)
    connection.close()
    assert (program.returncode, out, err) == (0, "", "")


def test_reads_data_from_a_file_and_sets_faults_and_a_control_port(tmp_path: Path) -> None:
    file = tmp_path / "data.json"
    file.write_text('{"films": [{"id": "1", "description": ""}], "version": 3}')
    program = run("--data", str(file), "--stamp", "--delay", "0.01", "--control", "0")
    connection = connect(url(program))
    connection.request("GET", "/films/1")
    stamp = receive(connection).json["description"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", stamp)
    connection.close()
    panel = connect(url(program, "control"))
    panel.request("GET", "/")
    assert receive(panel).json["requests"] == {"films": 1}
    panel.close()
    program.terminate()
    program.communicate(timeout=TIMEOUT)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--status", "304"), "status is null or a status"),
        (("--delay", "-1"), "delay is a number"),
        (("--data", "/nowhere.json"), "No such file"),
    ],
)
def test_prints_why_it_does_not_start(flags: tuple[str, ...], message: str) -> None:
    program = run(*flags)
    _, err = program.communicate(timeout=TIMEOUT)
    assert program.returncode == 1
    assert message in err
    assert "Traceback" not in err
