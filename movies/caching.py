"""What an answer says about its age: RFC 9111 (Cache-Control, Age), RFC 9211 (Cache-Status). Pure."""

import math

from services.freshness import Answer, Source


def headers(answer: Answer) -> dict[str, str]:
    if answer.source is Source.STALE:
        return {
            "Cache-Control": "no-cache",
            "Age": str(math.ceil(answer.age)),
            "Cache-Status": f"totoro; hit; ttl={math.floor(answer.ttl)}; detail={answer.why}",
        }
    seconds = max(math.floor(answer.ttl), 0)
    came_by = "hit" if answer.source is Source.HIT else "fwd=miss; fwd-status=200; stored"
    return {
        # What is left of the minute, so without Age: a cache would subtract that once more.
        "Cache-Control": f"public, max-age={seconds}",
        "Cache-Status": f"totoro; {came_by}; ttl={seconds}",
    }
