"""``python -m tools.loadgen``."""

from tools.loadgen.cli import main

main()
