"""The settings of the collector: `collector:` in headwater.yaml, `HEADWATER_COLLECTOR__PORT` and so on."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from pipeline.setting_kinds import ListeningHost

_SOURCE = re.compile(r"[a-z][a-z0-9_.-]{0,99}")
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]{1,300}")
_URL = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]{1,300}(/[A-Za-z0-9._~/-]{0,200})?")
_LEAST_KEY_CHARACTERS = 8


def _source(value: str) -> str:
    if not _SOURCE.fullmatch(value):
        raise ValueError("a source's name has small letters, digits, _ . and -, and begins with a letter")
    return value


class CollectorSettings(BaseModel):
    """How the collector listens, whom it lets in, and what it keeps of those who call."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    write_keys: dict[str, Annotated[str, AfterValidator(_source)]] = Field(
        default={}, max_length=10_000, description="Each write key and the name of the source it stands for."
    )
    host: ListeningHost = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for all.")
    port: int = Field(8088, ge=0, le=65535, description="Port to listen on; 0: a free one.")
    topic: str = Field("raw", min_length=1, max_length=249, description="Where events go; one of `sources`.")
    public_url: str | None = Field(
        None, description="The address browsers reach it under, for their settings; else the one they asked."
    )
    allowed_origins: tuple[str, ...] = Field(
        ("*",), min_length=1, max_length=1_000, description="Web pages that may send: https://shop.example, or *."
    )
    trusted_proxies: tuple[str, ...] = Field(
        (), description="Addresses or networks of proxies whose X-Forwarded-For is believed."
    )
    ip: Literal["drop", "truncate", "keep"] = Field(
        "drop", description="The caller's address in context.ip: dropped, without its last part, or whole."
    )
    user_agent: Literal["drop", "keep"] = Field("keep", description="The user agent in context.userAgent.")
    max_in_flight_bytes: int = Field(
        64 * 1024 * 1024,
        ge=2_000_000,
        description="Bytes of requests that may wait for the broker; what comes on top is told to come again.",
    )
    max_connections: int = Field(2_000, ge=1, le=100_000, description="Connections at a time.")
    ack_timeout_seconds: float = Field(
        10.0, ge=1, le=300, description="How long the broker may take to acknowledge before a caller is told 503."
    )
    read_timeout_seconds: float = Field(20.0, ge=1, le=300, description="How long a caller may take to send a body.")
    stop_timeout_seconds: float = Field(20.0, ge=1, le=300, description="How long open requests have at a stop.")

    @field_validator("write_keys", mode="before")
    @classmethod
    def _keys_are_texts(cls, value: Any) -> Any:
        if isinstance(value, dict) and not all(isinstance(key, str) for key in value):
            raise ValueError("a write key that YAML takes for a number or a date stands in quotes: {'20270115': web}")
        return value

    @field_validator("write_keys")
    @classmethod
    def _keys_can_be_sent(cls, value: dict[str, str]) -> dict[str, str]:
        for key in value:
            # Basic authentication ends the user's name at a colon; a settings path ends at a slash.
            if not _LEAST_KEY_CHARACTERS <= len(key) <= 200 or not re.fullmatch(r"[A-Za-z0-9._~-]+", key):
                raise ValueError(
                    f"a write key has {_LEAST_KEY_CHARACTERS} to 200 letters, digits, and . _ ~ -;"
                    " make one with: openssl rand -hex 16"
                )
        return value

    @field_validator("allowed_origins", "trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("allowed_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError("an origin is * or like https://shop.example, without a path")
        return value

    @field_validator("public_url")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is not None and not _URL.fullmatch(value):
            raise ValueError("write an address like https://events.shop.example")
        return value.rstrip("/") if value else value
