"""Which parameter names a resource, by type: what Puppet's types know and a catalog does not tell.

Made from ``Puppet::Type.key_attributes`` and ``isomorphic?`` of Puppet 7.23, of the types in Debian's puppet-module packages
and of a few widely used modules. Every other type is taken to be named by ``name``, and unique by it; but nobody knows all
types, so what else one may be named by is only asked when a reference needs it.
"""

from __future__ import annotations

NAMEVARS = {
    "File": "path",
    "Archive": "path",
    "Concat_file": "path",
    "Registry_key": "path",
    "Registry_value": "path",
    "Vcsrepo": "path",
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

# Types of Puppet itself: what names one of these and is not found is not there. Of others it may be this table that does not
# know the name.
OF_PUPPET = frozenset(
    ("Augeas", "Class", "Cron", "Exec", "File", "Filebucket", "Group", "Host", "Mailalias", "Maillist", "Mount", "Node",
     "Notify", "Package", "Resources", "Schedule", "Scheduled_task", "Selboolean", "Selmodule", "Service",
     "Ssh_authorized_key", "Sshkey", "Stage", "Tidy", "User", "Whit", "Yumrepo", "Zfs", "Zone", "Zpool")
)  # fmt: skip
