"""A FastAPI app that embeds the runtime: conversations by HTTP, events by SSE, and any pod may continue."""
