"""The schema registry, where one is set: without it whoever reads or writes Avro ends after half a minute."""

import ssl
from collections.abc import Iterator
from typing import Any

import httpx

from pipeline.doctor.finding import Finding
from pipeline.settings import Settings

_TIMEOUT_S = 3.0


def registry(settings: Settings, _: int) -> Iterator[Finding]:
    """Whether it answers, and takes our name and password."""
    properties = settings.schema_registry
    url = str(properties.get("url", ""))
    if not url:
        return
    # A registry of several addresses: the client takes the first that answers.
    refusals = []
    for address in url.split(","):
        address = address.strip().rstrip("/")
        asked, address = f"{address}/subjects", _without_password(address)
        try:
            answer = httpx.get(asked, auth=_auth(properties), verify=_trusted(properties), timeout=_TIMEOUT_S)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            refusals.append(f"{address}: {error}")
            continue
        if answer.status_code == httpx.codes.OK:
            yield Finding("schema registry", "good", f"{address} answers")
            return
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            what = f"{address} refuses us: {answer.status_code}"
            advice = "see `basic.auth.user.info` under `schema_registry:`, or the rights of that user"
            yield Finding("schema registry", "wrong", what, advice)
            return
        refusals.append(f"{address}: {answer.status_code}")
    advice = "see that it runs, and that `url` under `schema_registry:` is right; what is in Avro waits for it"
    yield Finding("schema registry", "wrong", f"does not answer: {'; '.join(refusals)}", advice)


def _without_password(address: str) -> str:
    scheme, mark, rest = address.rpartition("://")
    return scheme + mark + rest.rpartition("@")[2]


def _auth(properties: dict[str, Any]) -> tuple[str, str] | None:
    name, _, password = str(properties.get("basic.auth.user.info", "")).partition(":")
    return (name, password) if name else None


def _trusted(properties: dict[str, Any]) -> ssl.SSLContext | bool:
    file = properties.get("ssl.ca.location")
    return ssl.create_default_context(cafile=str(file)) if file else True
