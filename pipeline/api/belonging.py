"""Who belongs to which account, and which accounts there are, as the documents say it."""

from collections.abc import Iterator

import msgspec

from pipeline.api.tables import Row, Tables
from pipeline.records import ProfileDocument

_decode_document = msgspec.json.Decoder(ProfileDocument).decode


class _Accounts(msgspec.Struct):
    accounts: list[str] = []


_decode_accounts = msgspec.json.Decoder(_Accounts).decode


class People:
    """Who belongs to which account, in one batch."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._accounts: dict[bytes, list[str]] = {}
        self._names: dict[bytes, bytes] = {}

    def rows(self, profile_id: bytes, document: bytes | None) -> Iterator[Row]:
        """What changes with a profile's new document (None: it has ended)."""
        before = self._accounts.get(profile_id)
        if before is None:
            before = _accounts_in(self._tables.get("profiles", profile_id))
        after = self._accounts[profile_id] = _accounts_in(document)
        if before != after:
            for account in set(before) - set(after):
                yield "people", belonging(account, profile_id), None
            for account in set(after) - set(before):
                yield "people", belonging(account, profile_id), b""
        yield from self._account(profile_id, document)

    def _account(self, profile_id: bytes, document: bytes | None) -> Iterator[Row]:
        """The row of an account by its name."""
        if document is None:
            name = self._names.pop(profile_id, None) or _account_in(self._tables.get("profiles", profile_id))
            if name is not None:
                yield "accounts", name, None
        elif (name := _account_in(document)) is not None:
            self._names[profile_id] = name
            yield "accounts", name, profile_id


def _accounts_in(document: bytes | None) -> list[str]:
    if document is None or b'"accounts"' not in document:
        return []
    return _decode_accounts(document).accounts


def _account_in(document: bytes | None) -> bytes | None:
    """The name of the account a document is about; None if it is about a person, or there is none."""
    if document is None or b'"entity":"account"' not in document:
        return None
    found = _decode_document(document)
    return found.identifiers[0].value.encode() if found.entity == "account" and found.identifiers else None


def belonging(account: str, profile_id: bytes) -> bytes:
    """The key of a person of an account, in `people`."""
    return account.encode() + b"\x00" + profile_id
