"""The document that the views publish is valid, and has every page that a worker serves."""

from pathlib import Path

import msgspec
from aiohttp.test_utils import unused_port
from openapi_spec_validator import OpenAPIV31SpecValidator

from processors.settings import WorkerSettings
from processors.views.openapi import describe
from processors.views.page import OPEN_PAGES
from processors.worker import create_app

DOCUMENT = msgspec.json.decode(msgspec.json.encode(describe()))


def test_the_document_is_valid_openapi_3_1() -> None:
    assert [error.message for error in OpenAPIV31SpecValidator(DOCUMENT).iter_errors()] == []


def test_the_document_has_every_page_of_a_worker(tmp_path: Path) -> None:
    app = create_app(WorkerSettings(data_dir=tmp_path, web_port=unused_port()))
    app.web.init_server()
    served = {route.resource.canonical for route in app.web.web_app.router.routes()}
    # The page for people is not part of the document.
    assert served - set(OPEN_PAGES) == set(DOCUMENT["paths"])
