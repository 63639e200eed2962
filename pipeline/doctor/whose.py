"""Whether the secret here is that of the workspace."""

from collections.abc import Iterator

from pipeline.doctor.finding import Finding, SetUp
from pipeline.errors import SettingsError
from pipeline.secret_check import check_of
from pipeline.workspaces import TOPIC


def whose(setup: SetUp) -> Iterator[Finding]:
    """Whether the workspace was made with the secret that is here."""
    settings = setup.settings
    if settings.topic(TOPIC) not in setup.facts.cluster().topics:
        return
    kept = setup.facts.secret_check()
    if settings.has_no_secret_yet:
        if kept is not None:
            what = f"that of the workspace is not here: there is none in {settings.state_dir}"
            yield Finding("secret", "wrong", what, "go where `headwater up` runs, or set HEADWATER_SECRET to it")
        return
    try:
        check = check_of(settings.secret_bytes())
    except SettingsError:
        return  # said of this machine
    if kept is not None and kept != check:
        what = "the workspace was made with another one: to who has this one, everybody is somebody new"
        yield Finding("secret", "wrong", what, "give every process the one that the workspace was made with")
    elif kept is not None:
        yield Finding("secret", "good", "the one that the workspace was made with")
