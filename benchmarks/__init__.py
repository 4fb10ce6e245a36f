"""Our figures beside their raw limits, taken in one run on one machine: `make bench`.

Absolute numbers say how fast a machine is; only ratios inside one run say how good the library is. So a contender and its limit take
turns, and what is compared with a bar is the median of the rounds' ratios.
"""
