"""Find the city that somebody meant, however it was spelled; a function for `batchproxy map`.

    batchproxy map examples.cities:locate examples/visits.csv --field city --into place ...

It stands for a geocoder, which is reached over a network and takes many names in one request: it
compares each name with all that it knows, and every call takes 50 ms on top of that, as a request
would. `visits.csv` is the log of a shop that does not exist; people typed the names of cities.
"""

import difflib
import time
import unicodedata

LATENCY = 0.05  # seconds

COUNTRIES = {
    "Argentina": "Buenos Aires, Córdoba, Rosario",
    "Australia": "Sydney, Melbourne, Brisbane, Perth, Adelaide",
    "Austria": "Vienna, Graz, Linz, Salzburg, Innsbruck",
    "Belgium": "Brussels, Antwerp, Ghent, Liège",
    "Brazil": "São Paulo, Rio de Janeiro, Brasília, Salvador, Fortaleza",
    "Canada": "Toronto, Montréal, Vancouver, Calgary, Ottawa, Québec",
    "Chile": "Santiago, Valparaíso, Concepción",
    "Czechia": "Prague, Brno, Ostrava, Plzeň",
    "Denmark": "Copenhagen, Aarhus, Odense",
    "Finland": "Helsinki, Tampere, Turku",
    "France": "Paris, Marseille, Lyon, Toulouse, Nice, Nantes, Strasbourg, Bordeaux",
    "Germany": "Berlin, Hamburg, Munich, Cologne, Frankfurt, Stuttgart, Leipzig, Düsseldorf",
    "Greece": "Athens, Thessaloniki, Patras",
    "Hungary": "Budapest, Debrecen, Szeged",
    "India": "Mumbai, Delhi, Bengaluru, Hyderabad, Chennai, Kolkata, Pune",
    "Ireland": "Dublin, Cork, Limerick, Galway",
    "Italy": "Rome, Milan, Naples, Turin, Palermo, Genoa, Bologna, Florence, Venice",
    "Japan": "Tokyo, Yokohama, Osaka, Nagoya, Sapporo, Fukuoka, Kyoto",
    "Mexico": "Mexico City, Guadalajara, Monterrey, Puebla, Tijuana",
    "Netherlands": "Amsterdam, Rotterdam, The Hague, Utrecht, Eindhoven",
    "New Zealand": "Auckland, Wellington, Christchurch",
    "Norway": "Oslo, Bergen, Trondheim, Stavanger",
    "Poland": "Warsaw, Kraków, Łódź, Wrocław, Poznań, Gdańsk",
    "Portugal": "Lisbon, Porto, Braga, Coimbra",
    "South Korea": "Seoul, Busan, Incheon, Daegu",
    "Spain": "Madrid, Barcelona, Valencia, Seville, Zaragoza, Málaga, Bilbao",
    "Sweden": "Stockholm, Gothenburg, Malmö, Uppsala",
    "Switzerland": "Zürich, Geneva, Basel, Lausanne, Bern",
    "Turkey": "Istanbul, Ankara, İzmir, Bursa",
    "United Kingdom": "London, Birmingham, Manchester, Glasgow, Liverpool, Leeds, Edinburgh",
    "United States": "New York, Los Angeles, Chicago, Houston, Phoenix, Boston, Seattle, Austin",
}


def plain(name: str) -> str:
    """`name` in lower case, without accents and what is neither letter nor space."""
    letters = unicodedata.normalize("NFKD", name.casefold().replace("ł", "l"))
    return " ".join("".join(c for c in letters if c.isalpha() or c == " ").split())


PLACES = {
    plain(city): f"{city}, {country}"
    for country, cities in COUNTRIES.items()
    for city in cities.split(", ")
}


def locate(names: list[str]) -> list[str | None]:
    """The city and country of each of `names`; None where none is similar enough."""
    time.sleep(LATENCY)
    return [closest(plain(name.partition(",")[0])) for name in names]


def closest(city: str) -> str | None:
    found = difflib.get_close_matches(city, PLACES, n=1, cutoff=0.7)
    return PLACES[found[0]] if found else None
