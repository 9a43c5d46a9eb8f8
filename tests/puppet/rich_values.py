"""Values of every data type of Puppet's language, as its source, and the places where a value can stand."""

from __future__ import annotations

import random

PREAMBLE = """
type Words = Array[Variant[String, Integer]]
type Table = Hash[String, Words]
type Maybe = Optional[Integer]
type Thing_of = Optional[Thing_object]
type Shape = Struct[{a => Words, b => Maybe, Optional[c] => Maybe, Optional[d] => Words}]
type Thing_object = Object[{attributes => { name => String, n => { type => Integer, value => 3 } }}]
type Part = Object[{parent => Thing_object, attributes => { list => Array }}]
type Wrap = Object[{attributes => { value => Any }}]
type One = Object[{type_parameters => { p => Integer }, attributes => { p => Integer }}]
type Three = Object[{type_parameters => { p => Integer, q => String, r => Optional[Integer] },
  attributes => { p => Integer, q => String }}]
type Rules = Object[{attributes => { at => { type => String, kind => constant, value => 'x' },
  der => { type => Integer, kind => derived }, q => { type => String, value => "it's\\n" } },
  functions => { f => Callable[[Integer], String] }, equality => ['q']}]
type Rules_too = Rules
type Empty = Object[{}]
type Secret_text = Sensitive[String]
function f(*$given) >> Any { 1 }
"""

VALUES = r"""
'plain'
''
"it's"
"back\\slash and \\\\ two, \\' one"
"n\nt\tr\rq\"s'd\$b\\u\u{1}\u{7}\u{1b}é€"
"\u{7f}\u{80}\u{85}\u{a0}\u{ad}\u{200b}\u{2028}\u{202e}\u{e000}\u{fffd}\u{1f600}"
'a#{b#$c#@d#'
"\\\\' and \\'"
undef
true
false
0
-5
123456789012345678
1.5
1.0
-0.0
0.1
0.0001
0.00001
1e-7
123456789.123456789
123456789012345.0
1234567890123456.0
2746829858181293.5
1e15
-1230000000000000.0
-1.5e22
1e16
1.0e300
default
/r/
/a\/b'c\n"/
/é\/x/
/(?i:x)/
/(?i:é)/
/\p{Alpha}/
/\u00e9\\/
/(?i-mx:a)/
//
Timestamp('2020-01-01T00:00:00.123 UTC')
Timestamp('2020-01-01T00:00:00 +02:00')
Timespan('1-02:03:04.5')
Timespan(-5)
SemVer('1.2.3-rc1+b2')
SemVerRange('>=1.0.0 <2.0.0')
SemVerRange('1.x')
Binary('/wD+')
Binary('')
URI('http://u@h/p?q=1#f')
URI('urn:x:y')
URI('https://h:80/p:q')
[]
{}
[1, 'a', undef, default, /r/, String, 1.0e300, [[]], {}]
{'a' => 1, 'b' => undef, 'c' => {'d' => default, 'e' => /r/}}
{1 => 2}
{undef => 1, default => 2, true => 3, 1.5 => 4, /x\/y/ => 5, '' => 6}
{['a', 1] => 2}
{['a', undef, true, 1.5, default, /r/, "q\"n\n#{1}é", 1.0e300, 1e20] => 2}
{{'a' => {'b' => undef, /c/ => 1}, 1 => default} => 2}
{SemVer('1.2.3') => 1, Timespan(5) => 2, Binary('/wD+') => 3, URI('http://h') => 4, SemVerRange('1.x') => 5}
{String => 1, Array[String, 1] => 2, Words => 3, Thing_object => 4}
{'__pvalue' => 'x'}
{'__ptype' => 'Sensitive', '__pvalue' => 'x'}
{'__ptype' => 1, 'a' => {'__pvalue' => [/x/]}}
{'__pcore_value__' => 'x', 'value' => 'y'}
{1 => 2, '1' => 3}
Deferred('f')
Deferred('f', [])
Deferred('f', ["it's", 1, 1.5, undef, default, /r/, [1, [2]], {'a b' => {'c' => "n\n"}}, {1 => 2}, Integer])
Deferred('f', [Deferred('f', [Deferred('f', ["it's \\ \n"])])])
Deferred('f', [File['/x'], Class['a::b'], Notify["x\ny"], Resource['my::thing', 'it'], [Class['a', 'b']]])
Deferred('f', [{Deferred('f', [1]) => {[Deferred('f', [])] => SemVer('1.0.0')}}])
Deferred('f', [{'__ptype' => 'x'}, {'__pvalue' => 1}])
Thing_object('a', 5)
Thing_object('a')
Part('x', [1, /r/])
Wrap(undef)
Wrap(Wrap(/r/))
Wrap(Deferred('f', [Thing_object('a')]))
Wrap(Binary('/wD+'))
One(5)
Three(1, 'x')
Empty()
Rules()
Rules('q')
String
String[1]
String[0, 5]
Integer
Integer[default, 3]
Integer[3]
Integer[-5, 5]
Float
Float[1.0]
Float[default, 2.5]
Float[1e20, 1e300]
Numeric
Scalar
ScalarData
Any
Undef
Default
Boolean
Sensitive
NotUndef
NotUndef[String]
NotUndef["it's"]
Optional
Optional[Any]
Optional["n\nl"]
Optional[Array[Hash[String, Integer[1, 10]]]]
Enum
Enum["it's", 'b']
Enum['a', 'b', true]
Pattern
Pattern[/a'b/, 'b/c', /x\/y/, /é\n/]
Regexp
Regexp[/x/]
Regexp['a/b']
Regexp["\u{1}\n\té"]
Variant
Variant[String, Undef]
Variant[Optional['a'], NotUndef]
Tuple
Tuple[String, Integer, 2, 3]
Tuple[String, 0, default]
Tuple[Tuple[Integer], Optional[Tuple]]
Array
Array[Any]
Array[0, 0]
Array[String, 1]
Array[String, 1, 5]
Array[default, 2]
Array[Any, 0, default]
Hash
Hash[0, 0]
Hash[Any, Any]
Hash[String, Any]
Hash[String[1], Optional[Any], 1, 2]
Struct
Struct[{'a' => String, Optional['b'] => Integer}]
Struct[{'a' => Optional[String], Optional['b'] => Optional[Integer], NotUndef['c'] => Any, 'd d' => Integer}]
Struct[{a => Any, b => Undef, c => Variant[Integer, Undef], d => NotUndef, e => Optional, f => Maybe, i => Init, o => Variant}]
Struct[{NotUndef[a] => Any, NotUndef[b] => Undef, NotUndef[c] => Maybe, NotUndef[d] => Variant[Undef, Words]}]
Struct[{Optional[a] => Any, Optional[b] => Undef, Optional[c] => Maybe, Optional[d] => NotUndef[Maybe], Optional["e'"] => Init}]
Struct[{Optional[a] => Init[Array], Optional[h] => Init[Hash], Optional[s] => Init[Struct], Optional[t] => Init[Tuple]}]
Struct[{Optional[a] => Init[Array, true], Optional[h] => Init[Hash, tree], Optional[s] => Init[String, '%x']}]
Struct[{NotUndef[a] => Init[Array], NotUndef[h] => Init[Hash], NotUndef[w] => Init[Words], NotUndef[o] => Init[Thing_object]}]
Collection
Collection[1, 2]
Collection[1]
Iterable
Iterable[String]
Iterator
Iterator[Integer]
Callable
Callable[String]
Callable[0, 0]
Callable[1, 2]
Callable[String, Integer, 1, 3, Callable]
Callable[Callable]
Callable[[], Integer]
Callable[[String], Integer]
Callable[[0, 0, Callable[1, 1]], Integer]
Callable[[Integer, 0, default, Optional[Callable]], Any]
Type
Type[String]
Type[Type[Words]]
Type[Thing_object]
Optional[CatalogEntry]
Optional[Resource]
Optional[Resource['my::thing']]
Optional[Resource['file', "it's"]]
Optional[Class]
Optional[Class['a::b']]
Runtime
Runtime[ruby, 'X']
Init
Init[String]
Init[Integer, 16]
Init[Array, [1], true]
Timestamp
Timestamp['2020-01-01', '2021-01-01']
Timestamp['2020-01-01']
Timestamp[default, '2020-01-01']
Timespan
Timespan['1-00:00:00']
Timespan[default, 5]
SemVer
SemVer['1.x', '>=3.0.0 <4.0.0']
SemVerRange
Binary
URI
URI['http://h/p']
URI[{'scheme' => Enum['http', 'https'], 'path' => undef, 'port' => 80}]
Words
Optional[Words]
Table
Maybe
Thing_of
Shape
Optional[Shape]
Rules_too
Thing_object
Optional[Thing_object]
One[5]
Optional[One[5]]
Three[default, 'a']
Three[1, 'a', 2]
Optional[Object[{attributes => {a => Integer}}]]
Empty
type('abc')
type([1, 'a'])
type({'a' => undef, 'b b' => 'x'})
type(1.5)
type(/é/)
type(SemVer('1.0.0'))
type(Timestamp('2020-01-01'))
type(Timespan(5))
type([1, 'a'], generalized)
type([1, 'a'], reduced)
type(Deferred('f', [1]), generalized)
""".strip().split("\n")

# What native form has dropped of these, so that only the terminus can tell.
DROPPED = [
    "Boolean[true]",
    "Sensitive[String]",
    "type(Sensitive('x'))",
    # The order in which an object's attributes were declared, where an optional one comes before one that is not.
    "Part('x', [1], 5)",
]

# How the terminus says what a secret is: of some this says less.
SECRETS = [
    "Deferred('f', [Sensitive('x'), Sensitive(1), Sensitive(1.5), Sensitive(true), Sensitive(undef), Sensitive([])])",
    "Deferred('f', [Sensitive([1, 2]), Sensitive([1, 'a']), Sensitive({}), Sensitive({'a' => 1}), Sensitive({1 => 2})])",
    "Deferred('f', [Sensitive([[1], ['x']]), Sensitive([1, 1.5]), Sensitive([1, undef]), Sensitive(default)])",
    "Deferred('f', [Sensitive(Binary('')), Sensitive(SemVer('1.0.0')), Sensitive(Thing_object('a')), Sensitive(Timespan(5))])",
    "Deferred('f', [Sensitive(Timestamp('2020-01-01')), Sensitive(URI('http://x')), Sensitive(Deferred('f', []))])",
    "Wrap(Sensitive('x'))",
    "{[Sensitive('x')] => 1}",
]

SECRET = "hunter2"
# Of these the agent is to make a Sensitive.
MADE_SECRETS = [
    f"Deferred('new', [Sensitive, '{SECRET}'])",
    f"Deferred('new', [Sensitive[String], '{SECRET}'])",
    f"Deferred('new', [Sensitive[Enum['{SECRET}', 'b']], '{SECRET}'])",
    f"Deferred('new', [Optional[Sensitive[String]], '{SECRET}'])",
    f"Deferred('new', [Init[Sensitive], '{SECRET}'])",
    f"Deferred('new', [Secret_text, '{SECRET}'])",
    f"Deferred('new', ['Sensitive', '{SECRET}'])",
    f"Deferred('call', ['new', Sensitive, '{SECRET}'])",
    f"Deferred('f', [Deferred('new', [Sensitive, '{SECRET}'])])",
    f"[{{'a' => Deferred('new', [Sensitive, '{SECRET}'])}}]",
    f"{{[Deferred('new', [Sensitive, '{SECRET}'])] => 1}}",
    f"{{{{'a' => Deferred('new', [Sensitive, '{SECRET}'])}} => 1}}",
    f"Wrap(Deferred('new', [Sensitive, '{SECRET}']))",
    f"Deferred('f', [Sensitive('{SECRET}'), {{Sensitive('{SECRET}') => 1}}])",
    f"{{[Sensitive('{SECRET}')] => [Sensitive('{SECRET}')]}}",
]

PLACES = {
    "alone": "{}",
    "in an array": "[1, [{}]]",
    "in a hash": "{{'k' => {{'l' => {}}}}}",
    "as a key": "{{{} => {{1 => {}}}}}",
    "in Deferred": "Deferred('f', [{}, {{'k' => {}}}, {{{} => 1}}])",
    "in Deferred in Deferred": "{{'d' => Deferred('f', [Deferred('f', [[{}]])])}}",
    "in an object": "[Wrap({})]",
    "in a key": "{{[{}] => 1}}",
    "in a hash in a key": "{{[1, {{'k' => {}, /x/ => [{}]}}] => 1}}",
}

# A reference to a resource becomes a text (alone) or Puppet's object of a resource (in a key); Wrap takes a hash as its
# named arguments.
EVERYWHERE = [value for value in VALUES if "File['/x']" not in value]


def in_every_place() -> list[str]:
    found = []
    for place, text in PLACES.items():
        for value in EVERYWHERE if place != "alone" else VALUES:
            if place == "in an object" and value.startswith("{"):
                continue
            found.append(text.replace("{}", "\0").format().replace("\0", value))
    return found


class Maker:
    """Makes up values, the same ones of the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def value(self, depth: int = 4) -> str:
        kinds = [self._plain, self._text, self._known]
        if depth > 0:
            kinds += [self._list, self._hash, self._deferred, self._type, self._object]
        return self._random.choice(kinds)(depth - 1)

    def _plain(self, _: int) -> str:
        number = self._random.uniform(-1, 1) * 10.0 ** self._random.randrange(-9, 21)
        # Puppet's language knows no sign in a positive exponent.
        written = (f"{number!r}".replace("e+", "e"), f"{self._random.randrange(10**6)}")
        return self._random.choice(("undef", "true", "default", *written))

    def _text(self, _: int) -> str:
        letters = self._random.choices(
            "ab '\"\\$#{}@/\n\t\r\x07\x1b\x7fé€\u0080\u0085\u2028\u200b\U0001f600", k=8
        )
        text = "".join(letters[: self._random.randrange(9)])
        return '"' + "".join(c if c.isalnum() else f"\\u{{{ord(c):x}}}" for c in text) + '"'

    def _known(self, _: int) -> str:
        return self._random.choice(EVERYWHERE)

    def _list(self, depth: int) -> str:
        return f"[{', '.join(self.value(depth) for _ in range(self._random.randrange(4)))}]"

    def _hash(self, depth: int) -> str:
        keys = (self._key(depth) for _ in range(self._random.randrange(4)))
        return "{" + ", ".join(f"{key} => {self.value(depth)}" for key in keys) + "}"

    def _key(self, depth: int) -> str:
        return self._text(depth) if self._random.random() < 0.6 else self.value(depth)

    def _deferred(self, depth: int) -> str:
        return f"Deferred('f', {self._list(depth)})"

    def _object(self, depth: int) -> str:
        return f"Wrap([{self.value(depth)}])"

    def _type(self, depth: int) -> str:
        inner = [self._type_in(depth) for _ in range(3)]
        low, high = sorted(self._random.sample(range(9), 2))
        return self._random.choice(
            (
                f"Optional[{inner[0]}]", f"NotUndef[{inner[0]}]", f"Variant[{', '.join(inner)}]", f"Type[{inner[0]}]",
                f"Array[{inner[0]}, {low}, {high}]", f"Hash[{inner[0]}, {inner[1]}]", f"Tuple[{inner[0]}, {inner[1]}]",
                f"Struct[{{a => {inner[0]}, Optional[b] => {inner[1]}, NotUndef[c] => {inner[2]}}}]",
                f"Callable[[{inner[0]}], {inner[1]}]", f"Iterable[{inner[0]}]", f"Enum[{self._name()}, 'b']",
                f"Integer[{low}, {high}]", f"String[{low}]", f"Collection[{low}, {high}]",
            )
        )  # fmt: skip

    def _name(self) -> str:
        return self._text(0)

    def _type_in(self, depth: int) -> str:
        if depth > 0 and self._random.random() < 0.6:
            return self._type(depth - 1)
        return self._random.choice(
            ("String", "Integer[1, 2]", "Undef", "Any", "Words", "Maybe", "Shape", "Thing_object", "One[5]", "Boolean",
             "Timestamp['2020-01-01']", "SemVer['1.x']", "Pattern[/a\\/b/]", "Enum['x']", "Default", "Init", "URI")
        )  # fmt: skip
