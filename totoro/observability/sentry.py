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
        auto_session_tracking=False,
        send_client_reports=False,
        before_send=prepare,
    )
    # Traces that cannot be sent are no bug.
    ignore_logger("opentelemetry.*")


def prepare(event: "Event", hint: "Hint") -> "Event":
    """Remove client and server from an event. Of the request, method and path remain.

    A log event of ours is one issue, whatever its fields: `outage_began`, for all outages.
    """
    record = hint.get("log_record")
    if record and isinstance(record.msg, dict):
        name, reason = record.msg["event"], record.msg.get("reason", "")
        event["logentry"] = {"message": name}
        event["fingerprint"] = [name]
        event["tags"] = {"reason": reason}
    request = event.get("request", {})
    event["request"] = {
        "method": request.get("method"),
        "url": urlsplit(str(request.get("url", ""))).path,
    }
    event.pop("breadcrumbs", None)
    event.pop("server_name", None)
    return event
