"""What a name of a model leads to: the engines that serve it, and what bounds its calls."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agentkit.errors import InvalidSetting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentkit.inference.pricing import Price
    from agentkit.ports.inference import Inference
    from agentkit.resilience.policy import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """An engine that serves a model.

    Args:
        model: what the engine calls it; empty: as agents do.
        weight: its share of the calls.
        policy: of the endpoint, whichever models it serves: its circuit and its permits.
    """

    engine: Inference
    model: str = ""
    weight: float = 1.0
    policy: Policy | None = None


class Model:
    """What a name stands for.

    Args:
        on: the engines that serve it.
        model: what they call it, where a place does not say; empty: as agents do.
        policy: of each call: its time, retries and rates.
        price: what it costs; several with the day from which each holds.
        fallback: models by name to ask, in order, when this one has failed.
    """

    def __init__(
        self,
        *on: Inference | Place,
        model: str = "",
        policy: Policy | None = None,
        price: Price | Sequence[Price] | None = None,
        fallback: Sequence[str] = (),
    ) -> None:
        if not on:
            raise InvalidSetting("Model.on", on, "needs one engine at least")
        places = [place if isinstance(place, Place) else Place(engine=place) for place in on]
        self.places = [replace(place, model=place.model or model) for place in places]
        self.policy, self.price, self.fallback = policy, price, tuple(fallback)
