"""The load generator: a fleet of Puppet nodes that publish their catalogs when they are due.

``fleet`` makes the catalogs, ``schedule`` says when, ``sending`` publishes, ``watching`` sees what is stored,
``checking`` compares the end with what was sent, ``report`` reads the raw results. ``bench/loadgen`` is the command.
"""
