"""A plan as data: what it may say, what is wrong with it, and how it is carried out."""
