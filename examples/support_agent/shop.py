"""The shop's own systems: orders, refunds and the handbook. An app has such services already."""

from __future__ import annotations

from pathlib import Path

import anyio
from pydantic import BaseModel, TypeAdapter


class Order(BaseModel):
    """An order of a customer."""

    id: str
    customer: str
    item: str
    status: str
    cents: int


class Passage(BaseModel):
    """A piece of the handbook."""

    title: str
    text: str


class Refund(BaseModel):
    """Money that was paid back."""

    order_id: str
    cents: int
    receipt: str


BOOK = TypeAdapter(dict[str, Refund])
ORDERS = [
    Order(id="17", customer="ann", item="a desk lamp", status="sent on Monday", cents=4900),
    Order(id="18", customer="ann", item="a kettle", status="returned by the customer", cents=3500),
    Order(id="19", customer="ben", item="a sofa", status="in production", cents=129_900),
]
HANDBOOK = [
    Passage(title="Delivery", text="A parcel that was sent takes three working days; after a week we look for it with the carrier."),
    Passage(title="Returns", text="Goods can be returned within 30 days. The refund is paid when the returned goods have arrived."),
    Passage(title="Refunds", text="A refund goes back the way it was paid and takes five days. Above 200 euro a colleague decides."),
    Passage(title="Warranty", text="A defect within two years is repaired or replaced without charge."),
]


class Shop:
    """Orders, and a book of refunds in a file: it outlives the process, as a payment provider's does."""

    def __init__(self, book: Path) -> None:
        self._book = anyio.Path(book)
        self._lock = anyio.Lock()

    async def order(self, order_id: str, customer: str) -> Order:
        """Raises LookupError for an order that is not this customer's."""
        found = next((order for order in ORDERS if order.id == order_id and order.customer == customer), None)
        if found is None:
            raise LookupError(f"{customer or 'this customer'} has no order {order_id!r}")
        return found

    async def refund(self, order: Order, cents: int, *, key: str) -> str:
        """Pay back, and return the receipt. The same key again pays nothing. Raises ValueError for more than is left of the price."""
        async with self._lock:
            paid = await self.refunds()
            if key not in paid:
                left = order.cents - sum(refund.cents for refund in paid.values() if refund.order_id == order.id)
                if not 0 < cents <= left:
                    raise ValueError(f"{cents} cents cannot be refunded: of order {order.id} there are {left} cents left to refund")
                receipt = f"receipt {len(paid) + 1}: {cents / 100:.2f} euro for order {order.id}"
                paid[key] = Refund(order_id=order.id, cents=cents, receipt=receipt)
                await self._book.write_bytes(BOOK.dump_json(paid, indent=2))
            return paid[key].receipt

    async def receipt(self, key: str) -> str | None:
        """What was paid under a key, if anything was."""
        found = (await self.refunds()).get(key)
        return None if found is None else found.receipt

    async def refunds(self) -> dict[str, Refund]:
        """What was paid back, by key."""
        return BOOK.validate_json(await self._book.read_bytes()) if await self._book.exists() else {}
