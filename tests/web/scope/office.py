"""Flows as an office would have them, for the screenshots of the documentation; beside them stands Code Atlas."""

from __future__ import annotations

import asyncio
from datetime import date
from enum import Enum
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from kodo.flow import File, action, emit, flow, lock, output, progress

MADE_BY = {"author": "flows@example.com", "organization": "Example", "release": "1.4.0"}
LIMIT = 10_000


class Approval(BaseModel):
    """What a person decides of a payment."""

    approved: bool
    reason: Annotated[str, Field(description="Goes into the books, and to the supplier if you refuse.")] = ""


@flow(name="Invoice Check", tags=["finance"], **MADE_BY)
async def invoice(supplier: str, amount: Annotated[float, Field(gt=0)], currency: str = "EUR") -> dict[str, object]:
    """Compare an invoice with its order; payments over 10,000 need your approval."""
    await action("find the order", supplier=supplier)
    await progress(50, "compared with the order")
    await emit("result", {"order": "4711", "ordered": amount, "invoiced": amount, "difference": 0})
    approved = True
    if amount > LIMIT:
        answer = await lock(f"Pay {amount:,.0f} {currency} to {supplier}?", Approval)
        approved = answer.approved
    await output.write("booking.csv", f"supplier,amount,currency\n{supplier},{amount},{currency}\n")
    return {"supplier": supplier, "amount": amount, "currency": currency, "approved": approved}


@flow(name="Press Review", tags=["research"], **MADE_BY)
async def press(
    topic: Annotated[str, Field(title="Topic", description="A company, a product or a person.")],
    days: Annotated[int, Field(title="Days", description="How far back to look.", ge=1, le=90)] = 7,
    language: Annotated[Literal["English", "German", "French"], Field(title="Language")] = "English",
) -> str:
    """Read what was written about a topic, and sum it up on one page."""
    for number in range(1, 4):
        await progress(number * 30, f"source {number} of 3")
        await asyncio.sleep(0)
    await output.write("review.md", f"# {topic}\n\nThree sources wrote about {topic} in the last {days} days.\n")
    return f"# {topic}\n\nThree sources wrote about {topic} in the last {days} days."


@flow(name="Contract Summary", tags=["legal"], **MADE_BY)
async def contract(document: File, clauses: list[Literal["liability", "term", "price"]] = ["term"]) -> str:  # noqa: B006
    """Say on one page what a contract promises, and by when it can be cancelled."""
    return f"{document.name}: {', '.join(clauses)}"


@flow(name="Demand Forecast", tags=["planning"], **MADE_BY)
async def forecast(product: str, months: Annotated[int, Field(ge=1, le=24)] = 6) -> str:
    """Forecast the demand for a product from the orders of the last years."""
    await action("read the orders", product=product)
    raise LookupError(f"there are no orders of {product!r} in the last {months} months")


class Vehicle(Enum):
    """What drives."""

    VAN = "van"
    TRUCK = "truck"
    BICYCLE = "bicycle"


class Address(BaseModel):
    """Where."""

    street: Annotated[str, Field(title="Street", min_length=2)]
    city: Annotated[str, Field(title="City", min_length=2)]


@flow(name="Delivery Round", tags=["planning"], **MADE_BY)
async def delivery(
    day: Annotated[date, Field(title="Day")],
    vehicle: Annotated[Vehicle, Field(title="Vehicle")],
    depot: Annotated[Address, Field(title="Depot", description="Where the round begins and ends.")],
    stops: Annotated[list[Address], Field(title="Stops")] = [],  # noqa: B006
    hours: Annotated[float, Field(title="Hours", description="That the round may take at most.", gt=0)] = 8,
    express: Annotated[bool, Field(title="Express first")] = False,
    notes: Annotated[str, Field(title="Notes for the driver", max_length=2000)] = "",
) -> dict[str, object]:
    """Put the stops of a day in the order that takes least time."""
    return {"day": day.isoformat(), "vehicle": vehicle.value, "stops": len(stops), "hours": hours}
