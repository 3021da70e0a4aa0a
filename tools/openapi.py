"""Write spec/vault-openapi.json: the requests of a vault, from the table that serves them.

Shapes come from the very types that vault and client encode and decode, paths and forms from
`placet.vault.routes`, problems from `placet.errors`. tests/unit/vault/test_openapi.py compares.

    python tools/openapi.py           # write
    python tools/openapi.py --check   # exit 1 if what is written is another
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

import placet
from placet import errors
from placet.core.limits import MAX_BODY
from placet.vault.http import ID
from placet.vault.routes import KEY, ROUTES, Route

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "spec" / "vault-openapi.json"
WHO = {
    "anyone": "Any attested connection: a visitor proves nothing.",
    "workload": "A workload whose evidence was made for this purpose and key.",
    "resharer": "A new process of this very vault, of a release that the owner named.",
}
Json = dict[str, Any]


def document() -> Json:
    """Return the OpenAPI 3.1 document."""
    shapes = [shape for route in ROUTES for shape in (route.body, route.answer) if shape]
    _, components = msgspec.json.schema_components(
        list(dict.fromkeys(shapes)), ref_template="#/components/schemas/{name}"
    )
    paths: Json = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "placet vault",
            "version": placet.__version__,
            "description": "HTTP/1.1 over the attested channel (spec/05) and no other way in."
            f" Bodies are canonical JSON (RFC 8785) of at most {MAX_BODY} bytes. Every request may"
            " be repeated. Normative: spec/07.",
        },
        "paths": paths,
        "components": {
            "schemas": {name: _plain(shape) for name, shape in components.items()}
            | {"Problem": _problem()},
            "responses": {
                "Problem": {
                    "description": "RFC 9457: refused, and why.",
                    "headers": {
                        "x-request-id": _request_id(),
                        "retry-after": {
                            "description": "Seconds, where the problem has `retry_after`.",
                            "schema": {"type": "integer", "minimum": 0},
                        },
                    },
                    "content": {
                        "application/problem+json": {
                            "schema": {"$ref": "#/components/schemas/Problem"}
                        }
                    },
                }
            },
        },
    }


def _operation(route: Route) -> Json:
    words = re.findall(r"[a-z]+", route.path.removeprefix("/v1").replace("{key}", ""))
    operation: Json = {
        "operationId": "-".join([route.method.lower(), *words]),
        "description": WHO[route.who],
        "parameters": [*_parameters(route)],
        "responses": {
            "200": {
                "description": f"{route.answer.__name__}.",
                "headers": {"x-request-id": _request_id()},
                "content": {"application/json": {"schema": _reference(route.answer)}},
            },
            "4XX": {"$ref": "#/components/responses/Problem"},
            "503": {"$ref": "#/components/responses/Problem"},
        },
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _reference(route.body)}},
        }
    return operation


def _parameters(route: Route) -> Iterator[Json]:
    if "{key}" in route.path:
        yield _parameter("key", "path", KEY)
    for name, form in route.query.items():
        yield _parameter(name, "query", form)


def _parameter(name: str, where: str, form: str) -> Json:
    schema = {"type": "string", "pattern": f"^(?:{form})$"}
    return {"name": name, "in": where, "required": True, "schema": schema}


def _reference(shape: type) -> Json:
    return {"$ref": f"#/components/schemas/{shape.__name__}"}


def _request_id() -> Json:
    return {
        "description": "Random; the vault's operator finds the request by it in the log.",
        "required": True,
        "schema": {"type": "string", "pattern": f"^[0-9a-f]{{{2 * ID}}}$"},
    }


def _problem() -> Json:
    types = {e.type for e in _errors(errors.PlacetError)}
    text = {"type": "string"}
    return {
        "type": "object",
        "required": ["type", "status", "title", "detail", "hint", "request"],
        "properties": {
            "type": {"enum": sorted(errors.type_prefix + name for name in types)},
            "status": {"type": "integer"},
            "title": text,
            "detail": {**text, "description": "What was expected, and what came."},
            "hint": {**text, "description": "What to do next, if anything."},
            "request": _request_id()["schema"],
            "retry_after": {"type": "integer", "minimum": 0, "description": "Seconds."},
        },
    }


def _errors(kind: type[errors.PlacetError]) -> Iterator[type[errors.PlacetError]]:
    yield kind
    for under in kind.__subclasses__():
        yield from _errors(under)


def _plain(shape: object) -> object:
    """Return a schema with its patterns as JSON Schema has them: by ^ and $, not A and Z."""
    if isinstance(shape, dict):
        return {
            name: value.replace(r"\A", "^").replace(r"\Z", "$")
            if name == "pattern" and isinstance(value, str)
            else _plain(value)
            for name, value in shape.items()
        }
    return [_plain(value) for value in shape] if isinstance(shape, list | tuple) else shape


def main() -> int:
    """Write the document, or say whether it is the one that is written."""
    raw = msgspec.json.format(msgspec.json.encode(document(), order="sorted"), indent=1) + b"\n"
    if "--check" in sys.argv[1:]:
        return 0 if FILE.is_file() and FILE.read_bytes() == raw else 1
    FILE.write_bytes(raw)
    return 0


if __name__ == "__main__":
    sys.exit(main())
