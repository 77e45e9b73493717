"""Whether a CRD takes everything that an earlier one took: what must not change between releases.

A resource that was stored or written for the old CRD must be valid with the new one and keep every
field. Each finding is one line, ``<path>: <what has changed>``; the gate of tests/chart compares it
with the list of exceptions. Rules of the API server are only compared as text: another or a further
rule on a field that there was may refuse what was taken, and a person has to say that it does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

Json = Mapping[str, Any]

LOWER: Final = ("minimum", "minLength", "minItems", "minProperties")
UPPER: Final = ("maximum", "maxLength", "maxItems", "maxProperties")
# Any change of these may refuse or mean something else, and none can be compared.
FIXED: Final = (
    "allOf",
    "anyOf",
    "default",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "multipleOf",
    "not",
    "oneOf",
    "pattern",
    "uniqueItems",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
)
FREE: Final = "x-kubernetes-preserve-unknown-fields"
INT_OR_STRING: Final = "x-kubernetes-int-or-string"


def breaks(old: Json, new: Json) -> list[str]:
    """Everything in which the new CRD takes less than the old one, or means something else."""
    return [*_of_names(old["spec"], new["spec"]), *_of_versions(old["spec"], new["spec"])]


def _of_names(old: Json, new: Json) -> Iterator[str]:
    for key in ("group", "scope"):
        if old[key] != new[key]:
            yield f"spec.{key}: was {old[key]}, is {new[key]}"
    for key in ("kind", "listKind", "plural", "singular"):
        if old["names"].get(key) != new["names"].get(key):
            yield f"spec.names.{key}: was {old['names'].get(key)}, is {new['names'].get(key)}"
    for key in ("shortNames", "categories"):
        for name in sorted({*old["names"].get(key, ())} - {*new["names"].get(key, ())}):
            yield f"spec.names.{key}: {name} is gone"


def _of_versions(old: Json, new: Json) -> Iterator[str]:
    versions = {version["name"]: version for version in new["versions"]}
    for before in old["versions"]:
        name = before["name"]
        after = versions.get(name)
        if after is None or (before["served"] and not after["served"]):
            yield f"{name}: is not served any more"
            continue
        if before["storage"] and not after["storage"]:
            yield f"{name}: is not the stored version any more, which needs a conversion"
        for key, value in (before.get("subresources") or {}).items():
            if (after.get("subresources") or {}).get(key) != value:
                yield f"{name}: the sub-resource {key} has changed or is gone"
        selectable = [field["jsonPath"] for field in after.get("selectableFields") or ()]
        for field in before.get("selectableFields") or ():
            if field["jsonPath"] not in selectable:
                yield f"{name}: {field['jsonPath']} cannot be selected by any more"
        schemas = (each["schema"]["openAPIV3Schema"] for each in (before, after))
        yield from _of_schema(name, *schemas)


def _of_schema(path: str, old: Json, new: Json) -> Iterator[str]:
    """What has changed at one place and below it."""
    yield from _of_type(path, old, new)
    yield from _of_limits(path, old, new)
    yield from _of_rules(path, old, new)
    before, after = old.get("properties") or {}, new.get("properties") or {}
    for name in sorted(set(new.get("required") or ()) - set(old.get("required") or ())):
        # A default is filled in before anything is required.
        if "default" not in after.get(name, {}):
            yield f"{path}.{name}: is required now"
    for name, schema in before.items():
        if name in after:
            yield from _of_schema(f"{path}.{name}", schema, after[name])
        elif not new.get(FREE):
            yield f"{path}.{name}: is gone"
    if "items" in old:
        yield from _of_schema(f"{path}[]", old["items"], new.get("items") or {})
    yield from _of_other_keys(path, old, new)


def _of_other_keys(path: str, old: Json, new: Json) -> Iterator[str]:
    """Keys that no property names: kept as they are, described by a schema, or pruned."""
    if old.get(FREE) and not new.get(FREE):
        yield f"{path}: keys that are not described are not kept any more"
    before, after = old.get("additionalProperties"), new.get("additionalProperties")
    if before in (None, False) or new.get(FREE):
        return
    if after in (None, False):
        yield f"{path}: takes no free keys any more"
    elif isinstance(after, Mapping):
        yield from _of_schema(f"{path}.*", before if isinstance(before, Mapping) else {}, after)


def _of_type(path: str, old: Json, new: Json) -> Iterator[str]:
    before, after = _types(old), _types(new)
    if after and (not before or not before <= after):
        was = " or ".join(sorted(before)) or "anything"
        yield f"{path}: was {was}, is {' or '.join(sorted(after))}"
    if old.get("nullable") and not new.get("nullable"):
        yield f"{path}: may not be null any more"


def _types(schema: Json) -> set[str]:
    if schema.get(INT_OR_STRING):
        return {"integer", "string"}
    kind = schema.get("type")
    return {"integer", "number"} if kind == "number" else {kind} if kind else set()


def _of_limits(path: str, old: Json, new: Json) -> Iterator[str]:
    if "enum" in new:
        if "enum" not in old:
            yield f"{path}: takes only some values now"
        for value in (each for each in old.get("enum", ()) if each not in new["enum"]):
            yield f"{path}: does not take {value} any more"
    for key in LOWER:
        if key in new and (key not in old or new[key] > old[key]):
            yield f"{path}: {key} was {old.get(key, 'none')}, is {new[key]}"
    for key in UPPER:
        if key in new and (key not in old or new[key] < old[key]):
            yield f"{path}: {key} was {old.get(key, 'none')}, is {new[key]}"
    for key in FIXED:
        if old.get(key) != new.get(key):
            yield f"{path}: {key} was {old.get(key, 'none')}, is {new.get(key, 'none')}"


def _of_rules(path: str, old: Json, new: Json) -> Iterator[str]:
    before = {_rule(each) for each in old.get("x-kubernetes-validations") or ()}
    for each in new.get("x-kubernetes-validations") or ():
        if _rule(each) not in before:
            yield f"{path}: has the new rule {_rule(each)[0]}"


def _rule(validation: Json) -> tuple[str, bool]:
    """What decides; messages may change, and so may the layout."""
    return " ".join(validation["rule"].split()), bool(validation.get("optionalOldSelf"))
