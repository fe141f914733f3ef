"""The API under requests that nobody would write: schemathesis makes them from openapi.yaml."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
import yaml

import housekeeper as hk
from tests.test_web import TOKEN, ok

DOCUMENT = yaml.safe_load((Path(__file__).parent / "openapi.yaml").read_text())


@pytest.fixture
def app(make: Any) -> Any:
    """The API, with its document beside it, as schemathesis wants it."""
    held = hk.Task("held", lambda: hk.current_run().wait(0.1))
    housekeeper = make(hk.Task("sweep", ok, schedule="@daily"), held)

    def document(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(DOCUMENT).encode()]

    return housekeeper.mount(document, "/api", token=TOKEN)


def test_the_document_names_each_path_and_method() -> None:
    documented = {
        (method.upper(), path.replace("{", "<").replace("}", ">"))
        for path, methods in DOCUMENT["paths"].items()
        for method in methods
    }
    files = {"/", "/dashboard.css", "/dashboard.js", "/dashboard.svg", "/trouble.svg"}
    assert documented == {(route.method, route.path) for route in hk.ROUTES} - {
        ("GET", path) for path in files
    }


@pytest.mark.parametrize("path", DOCUMENT["paths"])
def test_no_request_is_answered_with_anything_but_what_is_documented(app: Any, path: str) -> None:
    schema = schemathesis.openapi.from_wsgi("/openapi", app)
    schema.raw_schema["servers"] = [{"url": "/api"}]
    (operation,) = (each.ok() for each in schema.include(path=path).get_all_operations())
    statuses: Counter[int] = Counter()

    @hypothesis.settings(max_examples=40, deadline=None, database=None)
    @hypothesis.seed(1)
    @hypothesis.given(
        case=operation.as_strategy(),
        known=hypothesis.strategies.sampled_from(["sweep", "held", ""]),
    )
    def fuzz(case: Any, known: str) -> None:
        if known and "name" in case.path_parameters:
            case.path_parameters["name"] = known
        answer = case.call_and_validate(headers={"Authorization": f"Bearer {TOKEN}"})
        statuses[answer.status_code] += 1

    fuzz()
    print(path, dict(statuses))
    assert statuses
    assert max(statuses) < 500
