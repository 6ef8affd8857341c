# SPDX-License-Identifier: Apache-2.0
"""Checks a design's theme against its JSON Schema and fills in the defaults.

Only the keywords our schemas use are known, and an unknown keyword is an error of the schema: a rule that is
not enforced must never look as if it were. Nothing here reads a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from xml.etree import ElementTree as ET

# Three signatures, a logo and a background, each a vector drawing or a small picture inside one.
SVG_CHARACTERS = 1_500_000
_ANNOTATIONS = frozenset({"$schema", "$id", "title", "description", "default", "examples"})
_KEYWORDS = frozenset(
    {"type", "enum", "pattern", "minLength", "maxLength", "format", "items", "maxItems", "required"}
    | {"properties", "patternProperties", "additionalProperties", "minimum", "maximum"}
)
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "number": (int, float),
    "boolean": bool,
}
_SVG_HREF = re.compile(r"#[\w.-]+|data:image/(?:png|jpeg);base64,[A-Za-z0-9+/=\s]+")
_SVG_URL = re.compile(r"url\(\s*[\"']?([^\"')]*)", re.IGNORECASE)
_SVG_FORBIDDEN = frozenset({"script", "foreignobject", "style", "animate", "set", "iframe"})
# The colour that `format: color` allows, and what a wording may quote.
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
PLACEHOLDERS = frozenset(
    {"recipient.name", "course", "grade", "completed_on", "student_no", "issued_on", "organisation.name"}
)


class ThemeRefused(ValueError):
    """The theme breaks its design's schema; `problems` holds (path, message) pairs for the form."""

    def __init__(self, problems: tuple[tuple[str, str], ...]) -> None:
        self.problems = problems
        super().__init__("; ".join(f"{path or 'theme'}: {message}" for path, message in problems))


def complete(schema: Mapping[str, Any], value: Any) -> Any:
    """Return `value` with the schema's defaults filled in.

    Raises:
        ThemeRefused: with every problem found, not only the first.
    """
    problems = tuple(_problems(schema, value, ""))
    if problems:
        raise ThemeRefused(problems)
    return _with_defaults(schema, value)


def _with_defaults(schema: Mapping[str, Any], value: Any) -> Any:
    if isinstance(value, list):
        return [_with_defaults(schema.get("items", {}), item) for item in value]
    if not isinstance(value, dict):
        return value
    properties: Mapping[str, Any] = schema.get("properties", {})
    filled = {name: rule["default"] for name, rule in properties.items() if "default" in rule}
    filled |= {name: _with_defaults(properties.get(name, {}), item) for name, item in value.items()}
    return dict(sorted(filled.items()))


def _problems(schema: Mapping[str, Any], value: Any, path: str) -> Iterator[tuple[str, str]]:
    unknown = set(schema) - _KEYWORDS - _ANNOTATIONS
    if unknown:
        raise ValueError(f"the schema uses a keyword that is not checked: {sorted(unknown)}")
    expected = _TYPES[schema["type"]]
    if not isinstance(value, expected) or (isinstance(value, bool) and schema["type"] != "boolean"):
        yield path, f"must be of type {schema['type']}"
    elif isinstance(value, dict):
        yield from _object_problems(schema, value, path)
    elif isinstance(value, list):
        yield from _array_problems(schema, value, path)
    elif isinstance(value, str):
        yield from ((path, message) for message in _text_problems(schema, value))
    elif not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        yield path, f"must lie between {schema.get('minimum')} and {schema.get('maximum')}"


def _object_problems(
    schema: Mapping[str, Any], value: dict[str, Any], path: str
) -> Iterator[tuple[str, str]]:
    if schema.get("additionalProperties") is not False:
        raise ValueError("every object of a theme's schema refuses unknown keys")
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{path}/{name}", "is required"
    for name, item in value.items():
        rule = schema.get("properties", {}).get(name)
        for pattern, candidate in schema.get("patternProperties", {}).items():
            rule = rule or (candidate if re.fullmatch(pattern, name) else None)
        if rule is None:
            yield f"{path}/{name}", "is not known to this design"
        else:
            yield from _problems(rule, item, f"{path}/{name}")


def _array_problems(schema: Mapping[str, Any], value: list[Any], path: str) -> Iterator[tuple[str, str]]:
    if len(value) > schema["maxItems"]:
        yield path, f"holds at most {schema['maxItems']}"
    for index, item in enumerate(value[: schema["maxItems"]]):
        yield from _problems(schema["items"], item, f"{path}/{index}")


def _text_problems(schema: Mapping[str, Any], value: str) -> Iterator[str]:
    if "enum" in schema and value not in schema["enum"]:
        yield f"must be one of {', '.join(schema['enum'])}"
    least, most = schema.get("minLength", 0), schema.get("maxLength", SVG_CHARACTERS)
    if not least <= len(value) <= most:
        yield f"must have {least} to {most} characters"
    elif "pattern" in schema and not re.fullmatch(schema["pattern"], value):
        yield "has a form that is not allowed"
    form = schema.get("format")
    if form == "color" and not _COLOUR.fullmatch(value):
        yield "must be a colour such as #12344d"
    elif form == "svg" and (reason := svg_problem(value)):
        yield reason
    elif form == "wording":
        if "\n" in value or any(ord(sign) < ord(" ") for sign in value):
            yield "must be one line"
        for name in _PLACEHOLDER.findall(value):
            if name not in PLACEHOLDERS:
                yield f"knows no placeholder {{{name}}}; there are {', '.join(sorted(PLACEHOLDERS))}"


def svg_problem(text: str) -> str | None:
    """Say why a drawing is not accepted, or None.

    Declarations, entities, scripts, style sheets and foreign content are refused; a reference leads inside
    the drawing or holds its picture itself.
    """
    if text == "":
        return None
    if "<!" in text.replace("<!--", "") or "<?xml-stylesheet" in text:
        return "must be an SVG drawing without declarations and entities"
    try:
        root = ET.fromstring(text)  # noqa: S314 - no declaration, so no entity can expand
    except ET.ParseError:
        return "must be an SVG drawing that is well-formed XML"
    if root.tag != "{http://www.w3.org/2000/svg}svg":
        return "must be an SVG drawing"
    return next((reason for element in root.iter() if (reason := _element_problem(element))), None)


def _element_problem(element: ET.Element) -> str | None:
    tag = str(element.tag).rsplit("}", 1)[-1].lower()
    if tag in _SVG_FORBIDDEN:
        return f"must not hold <{tag}>"
    for name, value in element.attrib.items():
        plain = name.rsplit("}", 1)[-1].lower()
        is_reference = plain in {"href", "src"} and not _SVG_HREF.fullmatch(value.strip())
        outside = [target for target in _SVG_URL.findall(value) if not target.startswith("#")]
        if plain.startswith("on") or is_reference or outside:
            return "must not refer to anything outside itself"
    return None
