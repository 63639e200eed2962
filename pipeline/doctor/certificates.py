"""Certificates: those this side shows and trusts, and the one each broker shows: what has run out, or soon will."""

import socket
import ssl
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs12

from pipeline.doctor.finding import Finding
from pipeline.settings import Settings
from pipeline.shown_times import shown_minute

_SOON_MS = 14 * 86_400_000
_DAY_MS = 86_400_000
_TIMEOUT_S = 3.0
_MAX_BYTES = 1_000_000
# What librdkafka's properties hold: files, and the certificates themselves.
_FILES = ("ssl.certificate.location", "ssl.ca.location")
_TEXTS = ("ssl.certificate.pem", "ssl.ca.pem")
_KEYSTORE = "ssl.keystore.location"


def certificates(settings: Settings, now_ms: int) -> Iterator[Finding]:
    """Whether any certificate is not valid now. Looking at the broker's sends nothing but the beginning of TLS."""
    for name in (*_FILES, _KEYSTORE):
        if name in settings.kafka:
            path = Path(str(settings.kafka[name]))
            try:
                if path.is_file():  # a folder of authorities, or `probe`, is the system's
                    with path.open("rb") as file:
                        text = file.read(_MAX_BYTES)
                    loaded = _kept(text, settings) if name == _KEYSTORE else _loaded(text)
                    yield from _judged(f"certificate {path}", loaded, now_ms, name)
                elif not path.exists() and name != "ssl.ca.location":
                    yield Finding("certificate", "wrong", f"{path} does not exist", f"correct `{name}` under `kafka:`")
            except (OSError, ValueError) as error:
                yield Finding("certificate", "wrong", f"{path} cannot be read: {error}", f"correct `{name}`")
    for name in _TEXTS:
        if name in settings.kafka:
            try:
                loaded = _loaded(str(settings.kafka[name]).encode())
            except ValueError as error:
                yield Finding("certificate", "wrong", f"`{name}` cannot be read: {error}", "give it as PEM")
                continue
            yield from _judged(f"certificate of {name}", loaded, now_ms, name)
    if "SSL" in str(settings.kafka.get("security.protocol", "")).upper():
        for address in (settings.bootstrap_servers or "").split(","):
            shown = _shown(address.strip())
            if shown is not None:
                yield from _judged(f"certificate of {address.strip()}", [shown], now_ms, "the broker's keystore")


def _loaded(text: bytes) -> list[x509.Certificate]:
    """The certificates in a PEM text. ValueError if it holds none, or one that cannot be read."""
    return x509.load_pem_x509_certificates(text)


def _kept(keystore: bytes, settings: Settings) -> list[x509.Certificate]:
    """What a PKCS#12 file shows for us. ValueError if it cannot be opened."""
    password = settings.kafka.get("ssl.keystore.password")
    found = pkcs12.load_pkcs12(keystore, None if password is None else str(password).encode()).cert
    return [] if found is None else [found.certificate]


def _shown(address: str) -> x509.Certificate | None:
    """What a broker shows; None if none answers here, which the check of the Kafka tells better."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    # Whom to trust is not asked here: a certificate that nobody should trust any more is what is looked for.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, int(port)), _TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=host) as secured,
        ):
            found = secured.getpeercert(binary_form=True)
        return x509.load_der_x509_certificate(found) if found else None
    except (OSError, ValueError):
        return None


def _judged(subject: str, found: list[x509.Certificate], now_ms: int, where: str) -> Iterator[Finding]:
    """The worst of several: a file of authorities may well hold some that have run out beside the one that counts."""
    ends = [(_ms(each.not_valid_after_utc), each) for each in found]
    if not ends:
        return
    begins_ms = min(_ms(each.not_valid_before_utc) for each in found)
    # One certificate must be valid; of a bundle, one of them must be.
    end_ms = max(end for end, _ in ends)
    if end_ms <= now_ms:
        advice = f"renew it ({where}); until then every connection is refused"
        yield Finding(subject, "wrong", f"has expired at {shown_minute(end_ms)}", advice)
    elif begins_ms > now_ms:
        advice = "set this machine's clock, or wait; until then every connection is refused"
        yield Finding(subject, "wrong", f"is valid only from {shown_minute(begins_ms)} on", advice)
    elif end_ms - now_ms < _SOON_MS:
        days = (end_ms - now_ms) / _DAY_MS
        yield Finding(
            subject, "warning", f"expires in {days:.1f} days, at {shown_minute(end_ms)}", f"renew it ({where})"
        )
    else:
        yield Finding(subject, "good", f"valid until {shown_minute(end_ms)}")


def _ms(time: datetime) -> int:
    return int(time.timestamp() * 1000)
