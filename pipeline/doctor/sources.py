"""Whether what a source maps is read at all: definitions say how, the setting `sources` says which topics."""

from collections.abc import Iterator

from pipeline.doctor.finding import Finding, SetUp, some


def sources(setup: SetUp) -> Iterator[Finding]:
    """Whether the topic of every source is among those that ingest reads."""
    settings = setup.settings
    if settings.topic("definitions") not in setup.facts.cluster().topics:
        return
    mapped = setup.facts.mapped()
    unread = settings.unread(mapped.values())
    if unread:
        told = some([f"{topic} of the source {name}" for name, topic in mapped.items() if topic in unread])
        advice = f"let ingest read them too: HEADWATER_SOURCES={','.join((*settings.sources, *unread))}"
        yield Finding("sources", "warning", f"topics that ingest does not read: {told}", advice)
    elif mapped:
        yield Finding("sources", "good", f"ingest reads the topic of each: {some(sorted(mapped))}")
