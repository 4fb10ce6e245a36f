"""Bring your own framework: agents whose step calls a LangGraph graph or a Pydantic AI agent."""
