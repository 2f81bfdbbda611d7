"""The study as a chart of a sea.

Each hospital is an island, its area its patients, with a route to the coordinator. The coast is drawn from the
hospital's name alone, so a hospital has the same island in every report.

>>> coast("lille", 10.0, 0.0, 0.0) == coast("lille", 10.0, 0.0, 0.0)
True
"""

import math
from collections.abc import Sequence
from zlib import crc32

from server.charts import svg
from server.charts.markup import Html, decimal, el, join
from server.result.finished import Run, Site
from server.result.wording import cut, hospitals, plural

WIDTH, HEIGHT = svg.MAP, 330
NAMED = 8  # islands that have room for a name
GOLDEN = math.pi * (3 - math.sqrt(5))
MIDDLE = (WIDTH / 2, HEIGHT / 2)

Place = tuple[float, float]


def sea(run: Run) -> Html:
    """Return a chart of islands, routes, and the coordinator in the middle, which no patient reaches."""
    places = _places(len(run.sites))
    radii = _radii(run.sites)
    named = len(run.sites) <= NAMED
    islands = list(zip(run.sites, places, radii, strict=True))
    return svg.canvas(
        "sea",
        WIDTH,
        HEIGHT,
        f"{hospitals(len(run.sites))} around one coordinator".capitalize(),
        f"Each island is a hospital and its area its patients; the dashed routes carry {_cargo(run)}, never patients.",
        svg.rect(0, 0, WIDTH, HEIGHT, "water", rx=10),
        *(svg.line(x, 0, x, HEIGHT, "graticule") for x in range(50, WIDTH, 100)),
        *(svg.line(0, y, WIDTH, y, "graticule") for y in range(65, HEIGHT, 100)),
        *(_route(place) for site, place in zip(run.sites, places, strict=True) if site in run.contributors),
        *(_island(site, place, radius, named=named) for site, place, radius in islands),
        *(_name(site, place, radius) for site, place, radius in islands if named),
        el("circle", cx=MIDDLE[0], cy=MIDDLE[1], r=11, class_="port"),
        el("circle", el("title", "coordinator"), cx=MIDDLE[0], cy=MIDDLE[1], r=4.5, class_="port-core"),
        svg.text(MIDDLE[0], MIDDLE[1] + 28, "coordinator", "t afloat", "middle") if named else None,
    )


def _cargo(run: Run) -> str:
    return "models" if run.trains else "noisy counts"


def _places(count: int) -> list[Place]:
    """Return the islands' places: few on a ring, many on a sunflower's spiral around the middle (Vogel 1979)."""
    if count <= NAMED:
        angles = [math.pi * (-0.75 + 2 * n / max(1, count)) for n in range(count)]
        return [(MIDDLE[0] + 134 * math.cos(a), MIDDLE[1] - 8 + 108 * math.sin(a)) for a in angles]
    spare = max(2, count // 12)
    far = math.sqrt(count + spare)
    spiral = [(math.sqrt(n + spare) / far, n * GOLDEN) for n in range(1, count + 1)]
    return [(MIDDLE[0] + 190 * r * math.cos(a), MIDDLE[1] + 150 * r * math.sin(a)) for r, a in spiral]


def _radii(sites: Sequence[Site]) -> list[float]:
    """Return areas in proportion to patients; alike where a hospital does not say."""
    patients = [site.patients for site in sites]
    most = max(patients, default=0)
    largest = 40.0 if len(sites) <= NAMED else 110.0 / math.sqrt(len(sites))
    return [largest * max(0.16, math.sqrt(count / most)) if most else largest * 0.6 for count in patients]


def _route(place: Place) -> Html:
    """Draw a curved route; islands and the port are drawn over its ends."""
    (x, y), (mx, my) = place, MIDDLE
    bend = ((x + mx) / 2 - (my - y) * 0.16, (y + my) / 2 + (mx - x) * 0.16)
    return el("path", d=f"M{_xy(place)} Q{_xy(bend)} {_xy(MIDDLE)}", class_="route")


def _island(site: Site, place: Place, radius: float, *, named: bool) -> Html:
    count = site.patients
    hint = f"{site.name}: {plural(count, 'patient')}" if count else site.name
    shallows = (12.0, 6.0) if named else (3.0,)
    return el(
        "g",
        el("title", hint),
        *(
            svg.path(coast(site.name, radius, *place, beyond=far), f"shallow s{n}", closed=True)
            for n, far in enumerate(shallows)
        ),
        svg.path(coast(site.name, radius, *place), "land", closed=True),
    )


def _name(site: Site, place: Place, radius: float) -> Html:
    x = min(max(place[0], 62.0), WIDTH - 62.0)
    y = place[1] + radius * 1.2 + 26
    count = site.patients
    return join(
        [
            svg.text(x, y, cut(site.name, 16), "t strong afloat", "middle"),
            svg.text(x, y + 15, plural(count, "patient"), "t", "middle") if count else None,
        ]
    )


def coast(name: str, radius: float, x: float, y: float, beyond: float = 0.0) -> list[Place]:
    """Draw a closed line around a place: a circle with the name's own bays, `beyond` pixels further out."""
    seed = crc32(name.encode())
    phases = [2 * math.pi * ((seed >> shift) & 255) / 256 for shift in (0, 8, 16)]
    count = max(14, min(44, round(radius * 2)))
    points = []
    for step in range(count):
        angle = 2 * math.pi * step / count
        waves = 0.13 * math.sin(2 * angle + phases[0]) + 0.08 * math.sin(3 * angle + phases[1])
        waves += 0.04 * math.sin(7 * angle + phases[2])
        far = radius * (1 + waves) + beyond
        points.append((x + far * math.cos(angle), y + far * math.sin(angle)))
    return points


def _xy(place: Place) -> str:
    return f"{decimal(place[0])},{decimal(place[1])}"
