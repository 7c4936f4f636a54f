"""Awaits: one map() under way, its calls, and the portal behind synchronous callers."""
