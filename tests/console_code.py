"""What the code of the console reads of what its GraphQL documents select."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from graphql import (
    DefinitionNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    OperationDefinitionNode,
    OperationType,
    Visitor,
    parse,
    visit,
)


def unused_fields(folder: Path) -> dict[str, set[str]]:
    """The fields of each operation and fragment that no module reads that is given their data."""
    modules = _Modules(folder)
    definitions: dict[str, DefinitionNode] = {}
    for path in folder.rglob("*.graphql"):
        for definition in parse(path.read_text(encoding="utf-8")).definitions:
            assert isinstance(definition, OperationDefinitionNode | FragmentDefinitionNode)
            assert definition.name is not None
            definitions[definition.name.value] = definition
    fields = {name: _Fields(definition) for name, definition in definitions.items()}
    found = {}
    for name in definitions:
        # What a fragment selects is in the data of all that contain it.
        containing = [name]
        for each in containing:
            containing += [
                other
                for other, of in fields.items()
                if each in of.fragments and other not in containing
            ]
        types = {of for each in containing for of in _types_of(each, definitions[each])}
        # The client reads the cursor of each subscription.
        if unused := fields[name].names - modules.read_by(types) - {"cursor"}:
            found[name] = unused
    return found


class _Fields(Visitor):
    """The fields and fragments that a definition selects, except the only field of a mutation."""

    def __init__(self, definition: DefinitionNode) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.fragments: set[str] = set()
        visit(definition, self)

    def enter_field(self, node: FieldNode, _: Any, __: Any, ___: Any, above: list[Any]) -> None:
        """Note a field."""
        operation = above[-2]
        if getattr(operation, "operation", None) is not OperationType.MUTATION:
            self.names.add((node.alias or node.name).value)

    def enter_fragment_spread(self, node: FragmentSpreadNode, *_: Any) -> None:
        """Note a fragment."""
        self.fragments.add(node.name.value)


class _Modules:
    """The code of the console without comments: its words, and what each module imports."""

    IMPORT = re.compile(r'^(?:import|export)\b[^;]*? from "([^"]+)";$', re.MULTILINE)
    COMMENT = re.compile(r"/\*.*?\*/|(?<!:)//[^\n]*", re.DOTALL)

    def __init__(self, folder: Path) -> None:
        self.words: dict[Path, set[str]] = {}
        self.imports: dict[Path, set[Path]] = {}
        self.names: dict[Path, set[str]] = {}
        """The words in the imports of each module."""
        for path in folder.rglob("*.ts*"):
            if path.parent.name == "generated":
                continue
            code = self.COMMENT.sub("", path.read_text(encoding="utf-8"))
            self.words[path] = set(re.findall(r"\w+", self.IMPORT.sub("", code)))
            found = list(self.IMPORT.finditer(code))
            self.names[path] = {word for one in found for word in re.findall(r"\w+", one[0])}
            names = [path.parent.joinpath(one[1]).resolve() for one in found]
            self.imports[path] = {
                name.with_suffix(end) for name in names for end in (".ts", ".tsx")
            }

    def read_by(self, types: set[str]) -> set[str]:
        """The words of the modules that import one of the types, and of the modules these use."""
        readers = {path for path, names in self.names.items() if names & types}
        readers |= {other for path in readers for other in self.imports[path]} & self.words.keys()
        return {word for path in readers for word in self.words[path]}


def _types_of(name: str, definition: DefinitionNode) -> set[str]:
    """The names in TypeScript of an operation or a fragment."""
    if isinstance(definition, OperationDefinitionNode):
        return {f"{name}Document", f"{name}{definition.operation.value.capitalize()}"}
    return {f"{name}Fragment"}
