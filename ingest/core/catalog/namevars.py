"""Which parameter names a resource, by type: what Puppet's types know and a catalog does not tell.

Made from ``Puppet::Type.key_attributes`` and ``isomorphic?`` of Puppet 7.23 and of the types in Debian's
puppet-module packages. Every other type is named by ``name``, and unique by it.
"""

from __future__ import annotations

NAMEVARS = {
    "File": "path",
    "Concat_file": "path",
    "Tidy": "path",
    "Exec": "command",
}

# Several resources may share the name (``isomorphic`` is false): it is no alias.
NOT_ISOMORPHIC = frozenset(("Exec", "Tidy"))

# Named by more than one parameter: only the title refers to them.
COMPOSITE = frozenset(
    (
        "Package",
        "Keystone_endpoint",
        "Keystone_identity_provider",
        "Keystone_service",
        "Keystone_tenant",
        "Keystone_user",
        "Keystone_user_role",
    )
)
