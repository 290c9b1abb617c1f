"""`python -m leaven`: the same command, where only the interpreter's path is known."""

from leaven.cli import main

main()
