"""JSON schemas that strict structured output accepts: every object closed, every property required, no word that servers refuse.

A property that may be left out cannot be written there. It becomes one that may be null, and null stands for being left out: `filled`
takes such nulls out again before a value is validated. What a server does not check is told in the description and checked by pydantic.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, cast

Schema: TypeAlias = dict[str, Any]

_DEFS = "#/$defs/"
_KEPT = (
    *("type", "enum", "const", "description", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    *("minItems", "maxItems"),
)
"""Words that mean the same to every server that was asked."""
_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
_TOLD = {"minLength": "at least {} characters", "maxLength": "at most {} characters", "uniqueItems": "no two alike"}


class NotClosed(ValueError):
    """A type of which no closed schema can be made.

    Args:
        path: where it stands in the schema.
        problem: what it is.
    """

    def __init__(self, path: str, problem: str) -> None:
        self.path, self.problem = path, problem
        super().__init__(f"{path or 'the value'}: {problem}")


def closed(schema: Mapping[str, Any]) -> Schema:
    """The schema as strict structured output accepts it. Raises `NotClosed` for what may hold anything."""
    closing = _Closing(schema.get("$defs", {}))
    made = closing.node(schema, "")
    if "$ref" in made:  # the outermost is to be an object
        made = closing.recursive[str(made["$ref"]).removeprefix(_DEFS)]
    return made | ({"$defs": closing.recursive} if closing.recursive else {})


def filled(value: Any, schema: Mapping[str, Any]) -> Any:
    """The value without the nulls that stand for what was left out. `schema` is the one before `closed`."""
    return _filled(value, schema, schema.get("$defs", {}))


def nullable(node: Mapping[str, Any], defs: Mapping[str, Any]) -> bool:
    """Whether null is a value of the type."""
    node = _resolved(node, defs)
    return not node or node.get("type") == "null" or any(nullable(one, defs) for one in _choices(node))


class _Closing:
    """One schema on its way. References are written out, but for those that lead back into themselves."""

    def __init__(self, defs: Mapping[str, Any]) -> None:
        self._defs = defs
        self._open: list[str] = []
        self.recursive: Schema = {}

    def node(self, node: Mapping[str, Any], path: str) -> Schema:
        if "$ref" in node:
            return self._reference(node, path)
        if choices := _choices(node):
            made: Schema = {"anyOf": [self.node(one, path) for one in choices]}
            return made | _described(node)
        if "enum" in node or "const" in node:
            return _plain(node)
        kind = node.get("type")
        if kind == "object":
            return self._object(node, path)
        if kind == "array":
            return self._array(node, path)
        if kind is None:
            raise NotClosed(path, "it may be anything; name its type")
        return _plain(node)

    def _reference(self, node: Mapping[str, Any], path: str) -> Schema:
        name = str(node["$ref"]).removeprefix(_DEFS)
        if name in self._open:
            self.recursive.setdefault(name, {})
            return {"$ref": _DEFS + name}
        self._open.append(name)
        made = self.node(self._defs[name], path)
        self._open.pop()
        if name in self.recursive:
            self.recursive[name] = made
            return {"$ref": _DEFS + name}
        return made | _described(node)

    def _object(self, node: Mapping[str, Any], path: str) -> Schema:
        if node.get("additionalProperties") not in (None, False) or "patternProperties" in node:
            raise NotClosed(path, "a mapping with any keys cannot be described; use a model, or a list of pairs")
        properties = {name: self._property(name, one, node, path) for name, one in node.get("properties", {}).items()}
        made: Schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
        return made | _described(node)

    def _property(self, name: str, node: Mapping[str, Any], of: Mapping[str, Any], path: str) -> Schema:
        made = self.node(node, f"{path}.{name}" if path else name)
        if name in of.get("required", ()):
            return made
        default = node.get("default")
        if nullable(node, self._defs):
            return made if default is None else made | _described(made, f"the default is {json.dumps(default)}")
        said = "null for the default" + (f", {json.dumps(default)}" if "default" in node else "")
        told = _described({"description": made.pop("description", "")}, said)
        choices = made["anyOf"] if set(made) == {"anyOf"} else [made]
        return {"anyOf": [*choices, {"type": "null"}]} | told

    def _array(self, node: Mapping[str, Any], path: str) -> Schema:
        if "prefixItems" in node:
            parts: list[Schema] = []
            for one in node["prefixItems"]:
                if (part := self.node(one, f"{path}[]")) not in parts:
                    parts.append(part)
            items = parts[0] if len(parts) == 1 else {"anyOf": parts}
        elif not node.get("items"):
            raise NotClosed(f"{path}[]", "it may be anything; name its type")
        else:
            items = self.node(node["items"], f"{path}[]")
        return _plain(node) | {"items": items}


def _plain(node: Mapping[str, Any]) -> Schema:
    """What is kept of a node that has nothing below it; what is not is told in the description."""
    made = {word: node[word] for word in _KEPT if word in node}
    if node.get("format") in _FORMATS:
        made["format"] = node["format"]
    if "pattern" in node and "(?" not in node["pattern"]:  # engines of grammars have no lookaround
        made["pattern"] = node["pattern"]
    return made | _described(node, *(said.format(node[word]) for word, said in _TOLD.items() if node.get(word)))


def _described(node: Mapping[str, Any], *more: str) -> Schema:
    text = "; ".join(filter(None, [str(node.get("description", "")), *more]))
    return {"description": text} if text else {}


def _choices(node: Mapping[str, Any]) -> list[Schema]:
    return [*node.get("anyOf", ()), *node.get("oneOf", ())]


def _resolved(node: Mapping[str, Any], defs: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in node:
        node = defs[str(node["$ref"]).removeprefix(_DEFS)]
    return node


def _filled(value: Any, node: Mapping[str, Any], defs: Mapping[str, Any]) -> Any:
    node = _resolved(node, defs)
    if isinstance(value, dict):
        return _filled_object(cast("dict[str, Any]", value), node, defs)
    if isinstance(value, list):
        return [_filled(one, _item(node, i, defs), defs) for i, one in enumerate(cast("Iterable[Any]", value))]
    return value


def _filled_object(value: dict[str, Any], node: Mapping[str, Any], defs: Mapping[str, Any]) -> dict[str, Any]:
    variant = next((one for one in _variants(node, defs) if _fits(value, one, defs)), Schema())
    properties, required = cast("Schema", variant.get("properties", {})), variant.get("required", ())
    kept: dict[str, Any] = {}
    for name, one in value.items():
        if one is None and name in properties and name not in required and not nullable(properties[name], defs):
            continue
        kept[name] = _filled(one, properties.get(name, {}), defs)
    return kept


def _variants(node: Mapping[str, Any], defs: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    node = _resolved(node, defs)
    if not (choices := _choices(node)):
        return [node]
    return [variant for one in choices for variant in _variants(one, defs)]


def _fits(value: dict[str, Any], node: Mapping[str, Any], defs: Mapping[str, Any]) -> bool:
    """Whether the object can be meant: it has no property too many, and its tags are the variant's."""
    properties = node.get("properties", {})
    if not value.keys() <= properties.keys():
        return False
    tags = {name: one["const"] for name, part in properties.items() if "const" in (one := _resolved(part, defs))}
    return all(value.get(name, tag) == tag for name, tag in tags.items())


def _item(node: Mapping[str, Any], i: int, defs: Mapping[str, Any]) -> Schema:
    """What may stand at a place of an array."""
    arrays = [one for one in _variants(node, defs) if one.get("type") == "array"]
    return {"anyOf": [[*one.get("prefixItems", ())[i : i + 1], one.get("items", {})][0] for one in arrays]}
