"""Decides: what is known, claimed, under way and waited for. Knows no event loop, does no I/O."""
