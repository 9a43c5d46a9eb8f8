"""Strings and regular expressions inside other texts, as Ruby 3.1 writes them: ``inspect`` and ``to_s``, recorded."""

from __future__ import annotations

import pytest

from ingest.core.catalog.ruby_text import inspected_regexp, regexp, regexp_of, ruby_string

# Not assigned, separators, controls, formats, private use, no characters; and beyond the first plane.
STRINGS = {
    '\u0378': '\\u0378',
    '\u2028': '\\u2028',
    '\u2029': '\\u2029',
    '\x85': '\x85',
    '\x7f': '\\u007F',
    '\x80': '\\u0080',
    '\x9f': '\\u009F',
    '\xad': '\xad',
    '\u200b': '\u200b',
    '\ue000': '\ue000',
    '\ufeff': '\ufeff',
    '\ufffe': '\\uFFFE',
    '\uffff': '\\uFFFF',
    '\U00010000': '\U00010000',
    '\U0001fffe': '\\u{1FFFE}',
    '\U0010ffff': '\\u{10FFFF}',
    '\U0001f600': '\U0001f600',
    '\U000e0001': '\U000e0001',
    '\U000f0000': '\U000f0000',
    '\xa0': '\xa0',
    '\u3000': '\u3000',
    '\ufdd0': '\\uFDD0',
    '\U00010380': '\U00010380',
    '\U0001039e': '\\u{1039E}',
}  # fmt: skip
# The source: what to_s and inspect make of it. All have a letter beyond ASCII, which ties them to UTF-8.
SOURCES = {
    '\xe9(?i)a': ('(?-mix:\xe9(?i)a)', '/\xe9(?i)a/'),
    '(?i)\xe9': ('(?i-mx:\xe9)', '/(?i)\xe9/'),
    '(?im)\xe9': ('(?mi-x:\xe9)', '/(?im)\xe9/'),
    '(?i-m:\xe9)': ('(?i-mx:\xe9)', '/(?i-m:\xe9)/'),
    '(?i:\xe9)': ('(?i-mx:\xe9)', '/(?i:\xe9)/'),
    '(?i:\xe9)(b)': ('(?-mix:(?i:\xe9)(b))', '/(?i:\xe9)(b)/'),
    '(?i:a)(\xe9)': ('(?-mix:(?i:a)(\xe9))', '/(?i:a)(\xe9)/'),
    '(?i:[)]\xe9)': ('(?i-mx:[)]\xe9)', '/(?i:[)]\xe9)/'),
    '(?i:\\)\xe9)': ('(?i-mx:\\)\xe9)', '/(?i:\\)\xe9)/'),
    '(?i:(a)\xe9)': ('(?i-mx:(a)\xe9)', '/(?i:(a)\xe9)/'),
    '(?i:a)|(?:\xe9)': ('(?-mix:(?i:a)|(?:\xe9))', '/(?i:a)|(?:\xe9)/'),
    '(?mix:\xe9)': ('(?mix:\xe9)', '/(?mix:\xe9)/'),
    '(?-mix:\xe9)': ('(?-mix:\xe9)', '/(?-mix:\xe9)/'),
    '(?i)(?m)\xe9': ('(?mi-x:\xe9)', '/(?i)(?m)\xe9/'),
    '(?i)(?-i)\xe9': ('(?-mix:\xe9)', '/(?i)(?-i)\xe9/'),
    '(?i)(?m:\xe9)': ('(?mi-x:\xe9)', '/(?i)(?m:\xe9)/'),
    '(?i)(?m:\xe9)b': ('(?-mix:(?i)(?m:\xe9)b)', '/(?i)(?m:\xe9)b/'),
    '(?i-i)\xe9': ('(?-mix:\xe9)', '/(?i-i)\xe9/'),
    '(?x)(?i:a)\xe9(b)': ('(?-mix:(?x)(?i:a)\xe9(b))', '/(?x)(?i:a)\xe9(b)/'),
    '\xe9\n': ('(?-mix:\xe9\n)', '/\\u00E9\n/'),
    '/\xe9': ('(?-mix:\\/\xe9)', '/\\/\\u00E9/'),
    '\xe9/': ('(?-mix:\xe9\\/)', '/\\u00E9\\//'),
    '\\/\xe9': ('(?-mix:\\/\xe9)', '/\\/\\u00E9/'),
    '\xe9\\u00e9': ('(?-mix:\xe9\\u00e9)', '/\xe9\\u00e9/'),
    '(?m:\xe9)\\)': ('(?-mix:(?m:\xe9)\\))', '/(?m:\xe9)\\)/'),
    '(?i:\xe9[(])': ('(?i-mx:\xe9[(])', '/(?i:\xe9[(])/'),
    '(?i:((\xe9)))': ('(?i-mx:((\xe9)))', '/(?i:((\xe9)))/'),
    'x\U0001f600': ('(?-mix:x\U0001f600)', '/x\U0001f600/'),
    '(?mi-x:(a)(\xe9))': ('(?mi-x:(a)(\xe9))', '/(?mi-x:(a)(\xe9))/'),
}  # fmt: skip
# As Puppet serialises one with options, its source as it is: what to_s and inspect make of that one.
WITH_OPTIONS = {
    '(?i-mx:\xe9)': ('(?i-mx:\xe9)', '/\xe9/i'),
    '(?imx:\xe9)': ('(?mix:\xe9)', '/\xe9/mix'),
    '(?i-mx:(?-i)\xe9)': ('(?-mix:\xe9)', '/(?-i)\xe9/i'),
    '(?i-mx:(?-i:\xe9))': ('(?-mix:\xe9)', '/(?-i:\xe9)/i'),
    '(?i-mx:(?x:\xe9)(a))': ('(?i-mx:(?x:\xe9)(a))', '/(?x:\xe9)(a)/i'),
    '(?m-ix:\xe9\n/)': ('(?m-ix:\xe9\n\\/)', '/\\u00E9\n\\//m'),
}  # fmt: skip


@pytest.mark.parametrize("character", STRINGS, ids=ascii)
def test_a_string_is_inspected_as_ruby_does(character: str) -> None:
    """Whatever Ruby finds printable stays; the rest is escaped by its code, by as many digits as it needs."""
    assert ruby_string(f"a{character}b") == f'"a{STRINGS[character]}b"'


@pytest.mark.parametrize(
    ("character", "bytes_"),
    [
        ("\ud800", "\\xED\\xA0\\x80"),
        ("\udfff", "\\xED\\xBF\\xBF"),
        ("\udc80", "\\x80"),
        ("\udcff", "\\xFF"),
        ("\udcc3", "\\xC3"),
        ("\udd00", "\\xED\\xB4\\x80"),
    ],
    ids=ascii,
)
def test_what_is_no_text_is_inspected_byte_for_byte(character: str, bytes_: str) -> None:
    """Half a pair of surrogates as the three bytes that it came as, a byte alone as itself."""
    assert ruby_string(f"a{character}b") == f'"a{bytes_}b"'


@pytest.mark.parametrize("source", SOURCES, ids=ascii)
def test_an_expression_is_written_as_ruby_does(source: str) -> None:
    """Options that it begins with become those of the whole where they are that; a group that ends before is none of it."""
    written, inspected = SOURCES[source]
    assert regexp_of(source) == f"/{written}/"
    assert inspected_regexp(source) == inspected


@pytest.mark.parametrize("serialised", WITH_OPTIONS, ids=ascii)
def test_an_expression_with_options_is_written_as_ruby_does(serialised: str) -> None:
    """They are told from the group that Puppet puts around it."""
    written, inspected = WITH_OPTIONS[serialised]
    assert regexp(serialised) == f"/{written}/"
    assert inspected_regexp(serialised) == inspected
