"""How Ruby and Puppet write a string, a number and a regular expression inside another text.

Sources: Puppet's ``StringConverter#puppet_quote``; Ruby 3.1's ``String#inspect``, ``Float#to_s``, ``Regexp#inspect`` and
``Regexp#to_s`` (``string.c``, ``numeric.c``, ``re.c``). What is done for each character of a text is done by ``replace``
and ``translate``: a message may be one text of megabytes.
"""

from __future__ import annotations

import re
import unicodedata

_CONTROL = re.compile("[\0-\x1f]")
_PUPPET_ESCAPES = {code: f"\\u{{{code:X}}}" for code in range(0x20)} | {
    0x09: "\\t", 0x0A: "\\n", 0x0D: "\\r", 0x22: '\\"', 0x24: "\\$", 0x5C: "\\\\",
}  # fmt: skip
_RUBY_ESCAPES = {
    0x07: "\\a", 0x08: "\\b", 0x09: "\\t", 0x0A: "\\n", 0x0B: "\\v", 0x0C: "\\f", 0x0D: "\\r", 0x1B: "\\e",
}  # fmt: skip
# From here on Ruby writes whole floats with an exponent (DBL_DIG); Python does from ten times that on.
_EXPONENT_FROM = 1e15


def puppet_string(text: str) -> str:
    """In quotes as Puppet writes them: single ones, or double ones where the text has a control character."""
    if _CONTROL.search(text):
        return '"' + text.translate(_PUPPET_ESCAPES) + '"'
    if "\\" not in text:
        return "'" + text.replace("'", "\\'") + "'"
    # A backslash and what follows it stand for themselves, a quote only behind such a backslash. The two control
    # characters hold the places of both pairs: the text has none.
    text = text.replace("\\\\", "\0").replace("\\'", "\1").replace("'", "\\'")
    return "'" + text.replace("\1", "\\'").replace("\0", "\\\\") + "'"


def ruby_string(text: str) -> str:
    """``String#inspect``."""
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    if "#" in text:
        text = text.replace("#{", "\\#{").replace("#$", "\\#$").replace("#@", "\\#@")
    if not text.isprintable():
        text = text.translate(_Inspected())
    return f'"{text}"'


class _Inspected(dict[int, str]):
    """What ``String#inspect`` makes of each character that may not be printable; filled as they are met."""

    def __missing__(self, code: int) -> str:
        self[code] = found = _RUBY_ESCAPES.get(code) or _inspected(code)
        return found


def _inspected(code: int) -> str:
    character = chr(code)
    category = unicodedata.category(character)
    if category == "Cs":  # bytes that are not UTF-8
        encoded = [code & 0xFF] if 0xDC80 <= code <= 0xDCFF else character.encode("utf-8", "surrogatepass")
        return "".join(f"\\x{byte:02X}" for byte in encoded)
    # Ruby finds formats (Cf), private use (Co) and the line separator U+0085 printable.
    if category in ("Cn", "Zl", "Zp") or (category == "Cc" and code != 0x85):
        return f"\\u{code:04X}" if code < 0x10000 else f"\\u{{{code:X}}}"
    return character


def number(value: float) -> str:
    """``Integer#to_s`` and ``Float#to_s``."""
    text = repr(value)
    if not isinstance(value, float):
        return text
    mantissa, _, exponent = text.partition("e")
    if exponent:
        return text if "." in mantissa else f"{mantissa}.0e{exponent}"
    if abs(value) < _EXPONENT_FROM or not text.endswith(".0"):
        return text
    sign, digits = ("-", text[1:-2]) if value < 0 else ("", text[:-2])
    return f"{sign}{digits[0]}.{digits[1:].rstrip('0') or '0'}e+{len(digits) - 1:02}"


# Ruby ties an expression to UTF-8 that has letters beyond ASCII in it, written in whatever way, or properties. It then
# counts as one with options, and is written with them.
_TIED = re.compile(
    r"[^\0-\x7f]|(?<!\\)(?:\\\\)*\\(?:[pP]\{|u(?!00[0-7])[0-9a-fA-F]{4}|x[89a-fA-F][0-9a-fA-F]"
    r"|u\{ *0*(?:[89a-fA-F][0-9a-fA-F]|[1-9a-fA-F][0-9a-fA-F]{2,}))"
)
# As Puppet serialises one that has options: all of them, those that are off behind a "-".
_WITH_OPTIONS = re.compile(r"\(\?(i?m?x?)(?:-(i?m?x?))?:(.*)\)\Z", re.DOTALL)
_EMBEDDED = re.compile(r"\(\?([mix]*)(?:-([mix]*))?([:)])")
_UNPRINTABLE = re.compile(r"[\0-\x1f\x7f/]")
# What stands behind a backslash is left alone (group 1), and so is white space.
_TO_ESCAPE = re.compile(r"((?:\\.)+)|[\0-\x08\x0e-\x1f\x7f/]", re.DOTALL)
_TO_ESCAPE_ALL = re.compile(r"((?:\\.)+)|[\0-\x08\x0e-\x1f/]|[^\0-\x7e]", re.DOTALL)


def regexp(text: str) -> str:
    """A value between slashes as Puppet writes it, from its serialised form."""
    source, options = _source(text)
    return regexp_of(source) if options is None else f"/{_with_options(source, options)}/"


def regexp_of(source: str) -> str:
    """The same from the source of an expression."""
    return f"/{_with_options(source, '')}/" if _TIED.search(source) else f"/{_expression(source)}/"


def inspected_regexp(text: str) -> str:
    """``Regexp#inspect``, from a value's serialised form."""
    source, options = _source(text)
    # Ruby escapes letters beyond ASCII only where there is something else to escape.
    if _UNPRINTABLE.search(source):
        source = _TO_ESCAPE_ALL.sub(_escaped, source)
    return f"/{source}/" + "".join(option for option in "mix" if option in (options or ""))


def _source(text: str) -> tuple[str, str | None]:
    """(the source, the options that are on; None where they cannot be told from what the source begins with)."""
    found = _WITH_OPTIONS.match(text) if _TIED.search(text) else None
    if found and sorted(found[1] + (found[2] or "")) == ["i", "m", "x"]:
        return found[3], found[1]
    return text, None


def _with_options(source: str, options: str) -> str:
    """``Regexp#to_s``: options that the source begins with become those of the whole."""
    on, start, end = set(options), 0, len(source)
    while found := _EMBEDDED.match(source, start):
        on = (on | set(found[1])) - set(found[2] or "")
        start = found.end()
        if found[3] == ":":
            end -= 1
            if not source.endswith(")") or not _is_balanced(source, start, end):
                on, start, end = set(options), 0, len(source)
            break
    off = "".join(option for option in "mix" if option not in on)
    shown = "".join(option for option in "mix" if option in on) + (f"-{off}" if off else "")
    return f"(?{shown}:{_expression(source[start:end])})"


_PARENTHESES = re.compile(r"\\.|\[(?:\\.|[^\\\]])*\]|[()]", re.DOTALL)


def _is_balanced(source: str, start: int, end: int) -> bool:
    """Whether that part is an expression by itself: its last parenthesis is not that of a group before."""
    depth = 0
    for found in _PARENTHESES.finditer(source, start, end):
        depth += {"(": 1, ")": -1}.get(found[0], 0)
        if depth < 0:
            return False
    return depth == 0


def _expression(source: str) -> str:
    return _TO_ESCAPE.sub(_escaped, source)


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    if match[1]:
        return character
    if character == "/":
        return "\\/"
    code = ord(character)
    if code < 0x80:
        return f"\\x{code:02X}"
    return f"\\u{code:04X}" if code < 0x10000 else f"\\u{{{code:X}}}"
