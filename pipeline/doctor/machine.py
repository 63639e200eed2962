"""This machine: the environment, the secret, the folders and their disk, the workers that restore here."""

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from pipeline.doctor.finding import Finding
from pipeline.errors import HeadwaterError
from pipeline.runtime.progress import Progress, reports_in
from pipeline.settings import ENV_PREFIX, SECRET_FILE, Settings
from pipeline.shown_times import shown_second
from pipeline.topology import IDENTITY, UNIFY

# Anything that somebody typed by heart; `openssl rand -hex 32` makes 64 characters.
_SHORTEST_SECRET = 16
_SPACE_WANTED = 2 * 1024**3
_SPACE_NEEDED = 200 * 1024**2
# A worker that restores says so once a second.
_SILENT_S = 10.0


def environment(_: Settings, __: int) -> Iterator[Finding]:
    """Variables that begin as ours do, and mean nothing."""
    known = {ENV_PREFIX + name.upper() for name in Settings.model_fields} | {f"{ENV_PREFIX}CONFIG"}
    unknown = sorted(name for name in os.environ if name.startswith(ENV_PREFIX) and name.split("__")[0] not in known)
    if unknown:
        yield Finding("environment", "warning", f"means nothing: {', '.join(unknown)}", "unset it, or correct its name")


def secret(settings: Settings, _: int) -> Iterator[Finding]:
    """Whether there is one, and whether others can read it."""
    if settings.has_no_secret_yet:
        yield Finding("secret", "good", f"none is kept in {settings.state_dir} yet: `headwater up` makes one")
        return
    try:
        settings.secret_bytes()
    except HeadwaterError as error:
        yield Finding("secret", "wrong", error.what, error.what_to_do)
        return
    file = settings.state_dir / SECRET_FILE
    if settings.secret is not None and _is_another(file, settings.secret.get_secret_value()):
        what = f"configured, and another one is kept in {file}: to who has the other one, everybody is somebody new"
        yield Finding("secret", "warning", what, "give every process the one that the workspace was made with")
    elif settings.secret is not None and (length := len(settings.secret_bytes())) < _SHORTEST_SECRET:
        what = f"has {length} characters: whoever reads the topics can guess it, and who people are"
        yield Finding("secret", "warning", what, "begin workspaces with one of openssl rand -hex 32; here it must stay")
    elif settings.secret is not None:
        yield Finding("secret", "good", "configured")
    elif stat.S_IMODE(file.stat().st_mode) & 0o077:
        yield Finding("secret", "warning", f"others can read {file}", f"chmod 600 {file}")
    else:
        yield Finding("secret", "good", f"kept in {file}")


def _is_another(file: Path, configured: str) -> bool:
    try:
        return file.read_text().strip() != configured
    except (OSError, UnicodeDecodeError):
        return False


def folders(settings: Settings, _: int) -> Iterator[Finding]:
    """Whether they can be written, and how much room their disks have."""
    yield _folder("state folder", settings.state_dir, "HEADWATER_STATE_DIR")
    yield _folder("cache folder", settings.cache_dir, "HEADWATER_CACHE_DIR")
    if settings.archive is not None and "://" not in (address := settings.archive.removeprefix("file://")):
        yield _folder("archive", Path(address).expanduser(), "HEADWATER_ARCHIVE")


def _folder(subject: str, folder: Path, variable: str) -> Finding:
    advice = f"make room, or set {variable} to a folder that can be written, on a disk with room"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        try:
            probe.write_bytes(b"\0" * 4096)
        finally:
            probe.unlink(missing_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Finding(subject, "wrong", f"{folder}: {error.strerror}", advice)
    if free < _SPACE_NEEDED:
        return Finding(subject, "wrong", f"{folder}: the disk is full, {free / 1024**2:.0f} MB free", advice)
    detail = f"{folder}: can be written, {free / 1024**3:.1f} GB free"
    if free < _SPACE_WANTED:
        return Finding(subject, "warning", detail, advice)
    return Finding(subject, "good", detail)


def restores(settings: Settings, now_ms: int) -> Iterator[Finding]:
    """How far the workers of this machine have come with their state, by what they last said."""
    for role in (IDENTITY, UNIFY):
        for told in reports_in(settings.state_dir / role.name):
            subject = f"state of {role.name}, slot {told.slot}"
            silent_s = (now_ms - told.at_ms) / 1000
            if not told.restoring:
                took_s = (told.ready_ms - told.began_ms) / 1000
                detail = f"{_partitions(len(told.ready))} ready {took_s:.1f} s after they were assigned"
                yield Finding(
                    subject,
                    "good",
                    f"{detail}, at {shown_second(told.ready_ms)}",
                )
            elif silent_s > _SILENT_S:
                detail = f"{_restoring(told)}; nothing was heard of it for {silent_s:.0f} s"
                advice = (
                    f"see its log: it has ended, or waits for the Kafka; headwater run {role.name} goes on from there"
                )
                yield Finding(subject, "warning", detail, advice)
            else:
                yield Finding(subject, "good", _restoring(told))


def _partitions(count: int) -> str:
    return f"{count} partition{'' if count == 1 else 's'}"


def _restoring(told: Progress) -> str:
    """Progress and time to ready, in words."""
    known = [each for each in told.restoring if each.target is not None]
    done = sum(each.position - each.start for each in known)
    left = sum((each.target or 0) - each.position for each in known)
    detail = f"restoring {len(told.restoring)} of {_partitions(len(told.restoring) + len(told.ready))}"
    if len(known) < len(told.restoring):
        return f"{detail}; waiting to hear from the Kafka how much there is"
    share = done / (done + left) if done + left else 1.0
    detail += f": {share:.0%} read back, {left:,} changelog offsets left"
    if told.seconds_left is None:
        return detail
    return f"{detail} at {told.records_per_second:,.0f} a second, ready in about {told.seconds_left:.0f} s"
