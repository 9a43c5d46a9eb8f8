"""Exporters, collectors of every shape, and what each of them finds."""

from __future__ import annotations

CODE = """
define service_of(Integer $port, Optional[String] $opt = undef, Array[String] $roles = [], String $loglevel = 'info') {
  notify { "${title}:${port}": }
}
node /^exporter/ {
  $n = $trusted['certname']
  @@sshkey { $n: type => 'ssh-rsa', key => "AAAA ${n}" }
  @@host { "${n} lab": ip => '10.0.0.1', tag => 'Lab_Host' }
  @@host { "${n} other": ip => '10.0.0.2', tag => 'other' }
  if $n == 'exporter1' {
    @@cron { 'nightly': command => '/bin/a', user => 'www' }
    @@file { '/a': content => 'a', mode => '0644', tag => 'a' }
    @@file { '/b': content => 'b', mode => '0644', tag => ['x', 'b'] }
    @@file { '/c': content => 'c', mode => '0600', tag => 'a' }
    @@file { '/d': content => 'd', mode => '0644', tag => 'd' }
    @@service_of { 'plain': port => 8080 }
    @@service_of { 'full': port => 8081, opt => 'set', loglevel => 'debug', roles => ['web', 'db'] }
    if $facts['keeps'] { @@service_of { 'dropped later': port => 9 } }
  } else {
    @@cron { 'hourly': command => '/bin/b', user => 'www' }
    @@cron { 'nightly root': command => '/bin/b', user => 'root' }
  }
}
node /^collector/ {
  @@sshkey { $trusted['certname']: type => 'ssh-rsa', key => 'mine' }
  case $facts['shape'] {
    %(cases)s
    default: { }
  }
}
"""

# The shapes a collector can have, and what each of them finds.
SHAPES = {
    "everything": ("Sshkey <<| |>>", ["Sshkey[collector]", "Sshkey[exporter1]", "Sshkey[exporter2]"]),
    "tag": ("Host <<| tag == 'lab_host' |>>", ["Host[exporter1 lab]", "Host[exporter2 lab]"]),
    "tag in capitals": ("Host <<| tag == 'LAB_HOST' |>>", ["Host[exporter1 lab]", "Host[exporter2 lab]"]),
    "another tag": (
        "Host <<| tag != 'lab_host' |>>",
        ["Host[exporter1 other]", "Host[exporter2 other]"],
    ),
    "type as tag": ("Host <<| tag == 'exporter1' |>>", []),
    "title and parameter": ("Cron <<| title == 'nightly' and user != 'root' |>>", ["Cron[nightly]"]),
    "parameter differs": ("Cron <<| user != 'root' |>>", ["Cron[hourly]", "Cron[nightly]"]),
    "nested, with override": (
        "File <<| (tag == 'a' or tag == 'b') and mode == '0644' |>> { owner => 'root' }",
        ["File[/a]", "File[/b]"],
    ),
    "integer": ("Service_of <<| port == 8080 |>>", ["Service_of[plain]"]),
    "integer as text": ("Service_of <<| port == '8080' |>>", []),
    "undef": (
        "Service_of <<| opt == undef |>>",
        ["Service_of[dropped later]", "Service_of[plain]"],
    ),
    "not undef": ("Service_of <<| opt != undef |>>", ["Service_of[full]"]),
    "bare word": ("Service_of <<| loglevel == debug |>>", ["Service_of[full]"]),
    "array contains": ("Service_of <<| roles == 'db' |>>", ["Service_of[full]"]),
    "no such parameter": ("Service_of <<| nothing == 'x' |>>", []),
    "no such title": ("Service_of <<| title == 'x' |>>", []),
}  # fmt: skip
TYPES = ("Sshkey", "Host", "Cron", "File", "Service_of")


def manifest() -> str:
    cases = "\n".join(f"    '{shape}': {{ {collector} }}" for shape, (collector, _) in SHAPES.items())
    return CODE.replace("%(cases)s", cases)
