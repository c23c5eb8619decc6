"""A stand-in of the Ghibli API for tests and demonstrations: `python -m upstream --port 3900`.

It answers the way the real program (json-server on express) was seen to answer, quirks included.
Not there: pages, sorting, operators such as `title_like`, JSONP and /swagger.yaml.
"""

from upstream.server import Seen, StandIn
from upstream.switches import Switches

__all__ = ["Seen", "StandIn", "Switches"]
