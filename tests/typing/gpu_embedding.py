"""A pipeline that embeds on GPUs: weighted permits that all processes share, tensors in and out, and none of them in the journal."""

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel

from agentkit import Agent, Context, Policy, Runtime, Semaphore, StepContext


class Batch(BaseModel):
    id: str
    texts: list[str]


class VectorDb:
    def __init__(self) -> None:
        self.rows: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]] = {}

    async def upsert(self, ids: Sequence[str], vectors: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
        self.rows.update(zip(ids, vectors, strict=False))


GPU = Semaphore("gpu", 4, shared=True, weight=2)  # this work takes two of the four permits


async def embed_and_store(step: StepContext, batch: Batch) -> int:
    """One step: tensors never enter the journal, only the count does."""
    ids = np.asarray([[len(t) for t in batch.texts]], dtype=np.int64)
    out = await step.models.infer("encoder", {"input_ids": ids})
    vectors = np.asarray(out["embedding"], dtype=np.float32)
    await step.get(VectorDb).upsert([batch.id], vectors)
    return int(vectors.shape[0])


class Embed(Agent[Batch, int]):
    durability = "relaxed"

    async def run(self, ctx: Context, batch: Batch) -> int:
        return await ctx.step("embed", embed_and_store, batch, effect="rerun", policy=Policy("triton", timeout_s=60, limits=[GPU]))


class Ingest(Agent[list[Batch], int]):
    async def run(self, ctx: Context, batches: list[Batch]) -> int:
        return sum(await ctx.map("embed", Embed, batches, key=lambda b: b.id, max_parallel=64))


async def main() -> None:
    async with Runtime(state="redis://r/0", agents=[Embed, Ingest], models="models.toml") as rt:
        await rt.submit(Ingest, [Batch(id="1", texts=["a"])], priority="low")
