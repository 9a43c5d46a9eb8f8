"""Whether a client takes JSON for an answer."""

from __future__ import annotations

from starlette.requests import Request

from ingest.front.refusal import Refusal

_TAKEN = ("application/json", "application/*", "*/*")


def require_json(request: Request) -> None:
    """Raises Refusal, 406. Without a header everything is taken; of ``application/json, version=2`` the first."""
    accept = request.headers.get("accept")
    if accept is None or any(_takes(range_) for range_ in accept.split(",")):
        return
    raise Refusal(406, "must accept application/json")


def _takes(range_: str) -> bool:
    kind, *parameters = (part.strip().lower() for part in range_.split(";"))
    return kind in _TAKEN and "q=0" not in parameters
