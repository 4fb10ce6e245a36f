"""The world outside: rooms, seats and a travel agency's book of reservations. An app has such services already."""

from __future__ import annotations

from pathlib import Path

import anyio
from pydantic import BaseModel, TypeAdapter


class Room(BaseModel):
    """A hotel with a free room."""

    hotel: str
    price: float


class Reservation(BaseModel):
    """Something that is booked. `key`: who booked it; the same key again is the same reservation."""

    key: str
    what: str
    price: float


class SoldOut(Exception):
    """There is nothing left to book. Nothing was booked."""


ROOMS = {
    "Bonn": [Room(hotel="Dreesen", price=140.0), Room(hotel="Stern", price=95.0)],
    "Ghent": [Room(hotel="Gravensteen", price=120.0), Room(hotel="Harmony", price=165.0)],
}
TRAINS = {"early": 39.0, "noon": 59.0}
SOLD_OUT = frozenset({"early"})
BOOK = TypeAdapter(dict[str, Reservation])


class Agency:
    """Books, and keeps what is booked in a file, so that it outlives the process as other people's systems do."""

    def __init__(self, file: Path) -> None:
        self._file = anyio.Path(file)
        self._lock = anyio.Lock()

    async def rooms(self, city: str) -> list[Room]:
        """Hotels that have a room, as the guide lists them. Raises SoldOut where there is none."""
        if city not in ROOMS:
            raise SoldOut(f"there is no hotel with a room in {city!r}")
        return ROOMS[city]

    async def book_room(self, city: str, hotel: str, nights: int, *, key: str) -> Reservation:
        """Raises SoldOut where there is no such room."""
        price = next((room.price for room in ROOMS.get(city, []) if room.hotel == hotel), None)
        if price is None:
            raise SoldOut(f"there is no room in {hotel!r}, {city}; there is {', '.join(r.hotel for r in ROOMS.get(city, [])) or 'none'}")
        return await self._enter(Reservation(key=key, what=f"{nights} nights in the {hotel}, {city}", price=price * nights))

    async def book_train(self, city: str, departure: str, *, key: str) -> Reservation:
        """Raises SoldOut where there is no seat."""
        if departure in SOLD_OUT or departure not in TRAINS:
            raise SoldOut(f"the {departure} train to {city} has no seats; others leave {', '.join(sorted(TRAINS.keys() - SOLD_OUT))}")
        return await self._enter(Reservation(key=key, what=f"a seat in the {departure} train to {city}", price=TRAINS[departure]))

    async def cancel(self, key: str) -> None:
        """Take a reservation back. There may be none."""
        async with self._lock:
            book = await self._read()
            if book.pop(key, None) is not None:
                await self._write(book)

    async def booked(self) -> list[Reservation]:
        """What is booked now."""
        return list((await self._read()).values())

    async def _enter(self, reservation: Reservation) -> Reservation:
        async with self._lock:
            book = await self._read()
            if reservation.key not in book:
                book[reservation.key] = reservation
                await self._write(book)
            return book[reservation.key]

    async def _read(self) -> dict[str, Reservation]:
        return BOOK.validate_json(await self._file.read_bytes()) if await self._file.exists() else {}

    async def _write(self, book: dict[str, Reservation]) -> None:
        await self._file.write_bytes(BOOK.dump_json(book, indent=2))
