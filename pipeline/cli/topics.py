"""`headwater topics`: create and check the topics of a workspace, and who may do what with them."""

from typing import Annotated

import typer
from rich.table import Table

from pipeline.admin import Difference, alike, check_topics, create_topics, wanted_topics
from pipeline.broker import find_kafka
from pipeline.cli._console import Console
from pipeline.errors import TopicsError
from pipeline.rights import as_command, rights
from pipeline.settings import Settings, load

app = typer.Typer(invoke_without_command=True)


@app.callback()
def topics(
    context: typer.Context,
    create: Annotated[bool, typer.Option("--create", help="Create those that are missing.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Say nothing but differences; end with 1 if there are.")
    ] = False,
    destination: Annotated[
        list[str] | None, typer.Option(help="Also the delivery topic of this destination; may be repeated.")
    ] = None,
) -> None:
    """Show the topics of the workspace and whether they are as the pipeline needs them.

    What exists is never changed: a difference is told, with what to do. Ends with 1 if a topic is missing or wrong.

    Example: headwater topics --create && headwater topics --check
    """
    if context.invoked_subcommand is not None:
        return
    settings = find_kafka(load())
    console = Console(highlight=False, soft_wrap=True)
    destinations = destination or []
    if create:
        created = create_topics(settings, destinations)
        console.print(f"created {len(created)} topics" if created else "all topics were there", markup=False)
        for name in created:
            console.print(f"  {name}", markup=False)
    differences = check_topics(settings, destinations)
    if not check and not create:
        console.print(_table(settings, destinations, differences))
    for (what, what_to_do, is_fatal), names in alike(differences).items():
        console.print(f"{'error' if is_fatal else 'remark'}: {what}: {', '.join(names)}", markup=False)
        console.print(f"    what to do: {what_to_do}", markup=False)
    fatal = [each for each in differences if each.fatal]
    if fatal:
        raise TopicsError(
            f"{len(fatal)} topics are missing or wrong.",
            settings.bootstrap_servers or "",
            "each stands above, with its way out",
        )
    if check and not differences:
        console.print("The topics are as they must be.")


@app.command()
def acls(
    destination: Annotated[
        list[str] | None, typer.Option(help="Also for this destination; may be repeated.", show_default=False)
    ] = None,
    principal: Annotated[str, typer.Option(help="Who a role is to Kafka; {role} stands for its name.")] = "User:{role}",
) -> None:
    """Print the rights each role needs, as commands of Kafka's own tool. Nothing is asked of the Kafka, nor changed.

    `operator` is whoever types commands: apply, topics --create, produce, dead-letters, identity.

    Example: headwater topics acls --destination crm --principal User:headwater-{role}
    """
    settings = load()
    address = settings.bootstrap_servers or "localhost:9092"
    role = ""
    for right in rights(settings, destination or []):
        if right.role != role:
            role = right.role
            typer.echo(f"# {role}")
        typer.echo(as_command(right, principal.replace("{role}", role), address))


def _table(settings: Settings, destinations: list[str], differences: list[Difference]) -> Table:
    verdicts = {each.topic: "missing" if each.what == "does not exist" else "differs" for each in differences}
    table = Table("topic", "partitions", "cleanup", "retention", "", box=None, pad_edge=False)
    for topic in wanted_topics(settings, destinations):
        retention_ms = int(topic.config.get("retention.ms", "-1"))
        kept = "latest of each key" if topic.config["cleanup.policy"] == "compact" else "no limit"
        if retention_ms >= 0:
            days = retention_ms // 86_400_000
            kept = f"{days} day{'' if days == 1 else 's'}"
        table.add_row(
            topic.name,
            str(topic.partitions),
            topic.config["cleanup.policy"],
            kept,
            verdicts.get(topic.name, "[green]✓[/]"),
        )
    return table
