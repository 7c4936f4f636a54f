"""`python -m batchproxy` is the command `batchproxy`."""

from .cli import main

main()
