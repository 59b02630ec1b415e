"""`/captured/learn`: a technician marks the lines of up to three slips, and gets a template for them."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any

from aiohttp import web

from gateway.api.server import Services, services
from gateway.counter import learn
from gateway.counter.slip_trial import likely_sales, numbered, tried
from gateway.domain.tax import LETTERS
from gateway.errors import FieldError, QueryInvalid, RequestError
from gateway.status.html import form, page, person
from gateway.store import captures
from gateway.store.captures import Captured

# Slips that the proposal is tried on, and slips that it is made from.
TRIAL_SLIPS, LEARN_SLIPS = 100, 3
# A form has a field for each line.
LINES_MAX = 70


def register(app: web.Application) -> None:
    app.router.add_get("/captured/learn", get_learn)
    app.router.add_post("/captured/learn", post_learn)


async def get_learn(request: web.Request) -> web.Response:
    """Ask for the code: what stands on a slip is a buyer's."""
    return page("learn.html", found=None)


async def post_learn(request: web.Request) -> web.Response:
    parts = services(request)
    code, value = await form(request)
    try:
        person(parts, code)
        found = await _proposed(parts, value)
    except RequestError as error:
        return page("learn.html", problem=error, found=None)
    return page("learn.html", found=found)


async def _proposed(parts: Services, value: dict[str, Any]) -> dict[str, Any]:
    """Return the proposal for the slips and marks of the form."""
    words = str(value.get("slips", "")).replace(",", " ").split()[:LEARN_SLIPS]
    if not all(word.isascii() and word.isdigit() and len(word) < 16 for word in words):
        raise QueryInvalid(
            "Write the numbers of up to three slips.",
            errors=[FieldError("/slips", "NOT_ALLOWED", "Not the number of a slip.")],
        )

    def read(conn: sqlite3.Connection) -> tuple[list[Captured], list[Captured]]:
        marked = [row for word in words if (row := captures.by_id(conn, int(word)))]
        device = marked[0].device if marked else None
        if device is None and (newest := captures.newest(conn, 1)):
            device = newest[0].device
        return marked, captures.newest(conn, TRIAL_SLIPS, device)

    marked, rows = await parts.db.read(read)
    if len(marked) < len(words) or not rows:
        raise QueryInvalid("There is no such slip. Let the till print one, and try again.")
    if len({row.device for row in marked}) > 1:
        raise QueryInvalid("These slips are of several tills. Each till has a template of its own.")
    return await asyncio.to_thread(_found, marked or likely_sales(rows), rows, value)


def _found(marked: list[Captured], rows: list[Captured], value: dict[str, Any]) -> dict[str, Any]:
    """Read every slip again; in a thread, since a hundred slips take a second on a small box."""
    lines = numbered(marked)[:LINES_MAX]
    roles = {
        line: role
        for at, line in enumerate(lines, start=1)
        if (role := value.get(f"role{at}")) in learn.ROLES
    }
    taxes = {
        name.removeprefix("tax."): letter
        for name, letter in value.items()
        if name.startswith("tax.") and letter in LETTERS
    }
    proposal = learn.propose([row.text.split("\n") for row in marked], roles, taxes)
    return {
        "slips": [row.id for row in marked],
        "device": marked[0].device,
        "lines": [
            (at, line, roles.get(line) or learn.guess(line)) for at, line in enumerate(lines, 1)
        ],
        "roles": learn.ROLES,
        "letters": LETTERS,
        "taxes": taxes,
        "marks": learn.marks_of(
            line for line in lines if (roles.get(line) or learn.guess(line)) == "item"
        ),
        "toml": learn.to_toml(proposal),
        "open": proposal.open,
        "trial": tried(proposal, rows),
        "own": tried(proposal, marked),
        "count": len(rows),
    }
