"""What a request is answered with when it cannot be served."""

from __future__ import annotations

import json

from starlette.responses import Response

TEXT = "text/plain;charset=utf-8"
JSON = "application/json;charset=utf-8"


class Refusal(Exception):
    """The request is answered with this status and text; as JSON where clients look for ``error`` in it."""

    def __init__(self, status: int, text: str, *, is_json: bool = False) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.is_json = is_json

    def response(self) -> Response:
        if self.is_json:
            return json_response({"error": self.text}, self.status)
        return text_response(self.text, self.status)


def json_response(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    # A lone surrogate that a client sent may be in what it is answered.
    return Response(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"), status, headers, JSON)


def text_response(text: str, status: int = 200) -> Response:
    return Response(text.encode("utf-8", "replace"), status, None, TEXT)


def unknown(kind: str, name: str) -> Refusal:
    """The parent of what is asked for. A terminus takes a 404 for "not found" only if it is JSON."""
    return Refusal(404, f"No information is known about {kind} {name}", is_json=True)
