"""A fake Ghibli API for tests and demonstrations: `python -m fake_ghibli --port 3900`.

It answers the way the real program (json-server on express) was seen to answer, quirks included.
Not there: pages, sorting, operators such as `title_like`, JSONP and /swagger.yaml.
"""

from fake_ghibli.faults import Faults
from fake_ghibli.server import FakeGhibli, Seen

__all__ = ["FakeGhibli", "Faults", "Seen"]
