"""Definitions back into YAML, as `headwater export` writes them and `headwater apply` reads them."""

from collections.abc import Iterable
from typing import Any

import yaml

from pipeline.definitions.documents import is_plainly_text, read_documents
from pipeline.records import Definition

_LINE_BREAKS = frozenset("\r\x85\u2028\u2029\ufeff")


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent(self, data: Any) -> None:
        # The document itself stands in lines, what is small inside of it in one.
        node: Any = self.represent_data(data)
        node.flow_style = False
        self.serialize(node)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    # What our reader would not read back as this text is put in quotes; PyYAML's own idea of that is another one.
    node = dumper.represent_scalar("tag:yaml.org,2002:str", value)
    if not is_plainly_text(value):
        node.style = "'"
    elif not _LINE_BREAKS.isdisjoint(value):
        node.style = '"'
    elif "\n" in value:
        node.style = "|" if value.strip() and not value.startswith((" ", "\n")) else '"'
    return node


_Dumper.add_representer(str, _text)


def as_yaml(body: dict[str, Any]) -> str:
    """One definition as YAML. Reading it gives an equal body; an assertion checks it each time."""
    text: str = yaml.dump(body, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100, default_flow_style=None)
    [document] = read_documents(text)
    assert document.value == body, "a definition must read back as it was written"
    return text


def export(definitions: Iterable[Definition]) -> str:
    """Several definitions as one YAML text, in the given order."""
    return "---\n".join(as_yaml(definition.body) for definition in definitions)
