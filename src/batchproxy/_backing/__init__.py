"""Between the cache and its store: bytes, leases, threads, and what is done when a store fails."""
