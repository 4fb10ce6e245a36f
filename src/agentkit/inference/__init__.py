"""Models: what they cost, who may spend it, and how they are asked."""
