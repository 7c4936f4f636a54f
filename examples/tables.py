"""Map a column of a table, and then another's: 5,000 visits, in which people typed names of cities.

`visits.csv` is the file that the README's command maps. Each spelling is looked up once, and a
second table of the same cities costs nothing.
"""

import time
from pathlib import Path

import pandas as pd
from cities import locate

from batchproxy import BatchingMapProxy
from batchproxy.integrations.pandas import map_series

VISITS = Path(__file__).parent / "visits.csv"


def main() -> None:
    visits = pd.read_csv(VISITS, parse_dates=["date"])
    proxy = BatchingMapProxy[str, str | None](batch_size=50, max_concurrency=4)
    place_of = proxy.bind(locate)

    start = time.perf_counter()
    visits["place"] = map_series(place_of, visits["city"])
    elapsed = time.perf_counter() - start

    recent = visits[visits["date"] >= visits["date"].max() - pd.Timedelta(days=7)]
    assert map_series(place_of, recent["city"]).equals(recent["place"])

    done = proxy.statistics()
    print(f"{len(visits):6,} rows, {visits['city'].nunique():,} of them distinct")
    print(f"{done.calls:6,} calls in {elapsed:.2f} s, and none for the last week again")
    pages = visits.groupby("place")["pages"].sum().nlargest(3)
    print("most pages:", *[f"{place} ({count:,})" for place, count in pages.items()], sep="\n  ")


if __name__ == "__main__":
    main()
