"""The proxies and what they give: signatures, docstrings, and which caller it is."""
