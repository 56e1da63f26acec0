"""`python -m kiloworlds` is the `kiloworlds` command."""

from kiloworlds.cli.main import entry

entry()
