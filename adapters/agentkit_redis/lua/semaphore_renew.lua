-- ARGV: now, for how many seconds, holders. Returns for each whether it still holds.
local told = {}
for i = 3, #ARGV do told[#told + 1] = hold_on(ARGV[i], ARGV[2]) end
tidy()
touch(ARGV[2])
return told
