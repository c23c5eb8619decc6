"""Error reports to Sentry, without personal data; on if SENTRY_DSN is set."""

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from sentry_sdk.types import Event, Hint


def start_sentry(dsn: str, *, environment: str, release: str) -> None:
    if not dsn:
        return
    import sentry_sdk
    from sentry_sdk.integrations.logging import ignore_logger

    sentry_sdk.init(
        dsn=dsn,
        environment=environment,
        release=f"totoro@{release}",
        send_default_pii=False,
        max_request_body_size="never",
        include_local_variables=False,
        # None: by default Sentry adds headers to every outgoing request, also to the Ghibli API.
        trace_propagation_targets=[],
        before_send=without_personal_data,
    )
    ignore_logger("django.security.DisallowedHost")


def without_personal_data(event: "Event", hint: "Hint") -> "Event":
    """Remove client and server from an event. Of the request, method and path remain."""
    request = event.get("request", {})
    event["request"] = {
        "method": request.get("method"),
        "url": urlsplit(str(request.get("url", ""))).path,
    }
    event.pop("breadcrumbs", None)
    event.pop("server_name", None)
    return event
