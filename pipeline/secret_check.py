"""Whether a process has the secret that its workspace was made with: docs/decisions/a-secret-is-known-by-its-check.md.

Whoever makes the topics of a workspace writes a check value of the secret into `workspace`; every role that derives
keys holds its own against it before it does anything. A workspace made by an earlier release, or by somebody who had no
secret at hand, has none, and nothing is held against it.
"""

import logging
from hashlib import blake2b

from pipeline.errors import BrokerError, SettingsError
from pipeline.runtime.kafka.doors import current_value, produce_all
from pipeline.settings import ENV_PREFIX, Settings
from pipeline.workspaces import SECRET_KEY, TOPIC, SecretCheck, decode_workspace_record, encode_workspace_record

_log = logging.getLogger(__name__)


def check_of(secret: bytes) -> str:
    """The check value of a secret: it leads to no key, and back to nothing."""
    hashed = blake2b(secret, digest_size=32, person=b"headwater").digest()
    return blake2b(hashed, digest_size=16, person=b"secret_check").hexdigest()


def keep_check(settings: Settings) -> None:
    """Write the check value into a workspace whose topics were made just now, if there is a secret here. Raises
    BrokerError."""
    try:
        secret = settings.secret_bytes()
    except SettingsError:
        return
    produce_all(settings, TOPIC, [(SECRET_KEY, encode_workspace_record(SecretCheck(check_of(secret))))])


def kept_check(settings: Settings) -> str | None:
    """The check value of the workspace, if it has one. Raises BrokerError."""
    value = current_value(settings, TOPIC, SECRET_KEY)
    found = decode_workspace_record(value) if value is not None else None
    return found.check if isinstance(found, SecretCheck) else None


def refuse_another_secret(settings: Settings) -> None:
    """Raises SettingsError: the secret here is not the one that the workspace was made with."""
    try:
        kept = kept_check(settings)
    except BrokerError as error:
        # Who may not read the topic, and a Kafka that is away, are told by whatever needs them.
        _log.warning("whether the secret is the workspace's could not be seen: %s", error.what)
        return
    if kept is not None and kept != check_of(settings.secret_bytes()):
        raise SettingsError(
            f"The workspace {settings.prefix} was made with another secret: under this one everybody is somebody new.",
            "secret",
            f"give every process the one it was made with ({ENV_PREFIX}SECRET, `secret` in headwater.yaml, or the state"
            " folder it was made from); for a workspace of your own beside it, set"
            f" {ENV_PREFIX}PREFIX, or another {ENV_PREFIX}BOOTSTRAP_SERVERS, or none; if nothing has been taken in yet,"
            " remove its topics and make them anew",
        )
