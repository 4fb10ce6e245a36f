-- Take out the undelivered tickets of runs. ARGV: now, then the runs. Returns how many there were.
local dropped = 0
for i = 2, #ARGV do
  for n, place in string.gmatch(copies_of(ARGV[i]), ':(%d+):(%w)') do
    if drop(n, place) then dropped = dropped + 1 end
    settle()
  end
end
conclude()
return dropped
