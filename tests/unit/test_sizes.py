"""Point 19 of the contract: sizes of batches that threads change at once."""

from batchproxy._core.sizes import FULL, Size


def test_two_threads_that_count_at_once_do_not_stop_it() -> None:
    """When both have counted before either looks, it grows with the next full batch."""
    size = Size(100)
    size.too_large(16)
    size._full = FULL
    size.answered(16)
    assert size.now == 18
