"""A fake Ghibli API for tests and demonstrations: `python -m fake_ghibli --port 3900`.

It responds like the real one, a json-server on express, including its quirks. Not supported: pages,
sorting, operators such as `title_like`, JSONP and /swagger.yaml.
"""

from fake_ghibli.faults import Faults
from fake_ghibli.server import FakeGhibli

__all__ = ["FakeGhibli", "Faults"]
