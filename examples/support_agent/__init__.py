"""A support agent: what is wanted, what the handbook says, the answer and the tools are agents and steps of their own."""
