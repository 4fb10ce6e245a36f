-- ARGV: now, who. Returns whether it held permits.
leave(ARGV[2])
local held = let_go(ARGV[2])
tidy()
return held
