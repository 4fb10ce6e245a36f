-- Answer leases otherwise than by an end. ARGV: now, the answer (give_back, retry, bury), the delay in ms, the reason, then the leases.
-- Returns for each whether it stood.
local due, reason = now + ARGV[3], ARGV[4]
local answers = {}

function answers.give_back(one)
  one.deliveries = one.deliveries - 1
  come_back(one, due)
end

-- As new at the end of its line.
function answers.retry(one)
  remove(one)
  if twin_of(one.ticket) then return end
  one.turn, one.place = '', ''
  enter(one, due)
  set_tried(one.n, one.deliveries - 1, 0)
end

function answers.bury(one)
  local id, n = one.ticket[1] .. ':' .. one.ticket[4], number()
  remove(one)
  local before = call('HGET', queue .. ':buried', id)
  if before then call('XDEL', queue .. ':dead', before .. '-0') else add('dead:' .. kind_of(one.ticket), 1) end
  call('XADD', queue .. ':dead', n .. '-0', 't', one.body, 'reason', reason, 'deliveries', one.deliveries, 'died_at', now_text)
  call('HSET', queue .. ':buried', id, n)
end

local told = {}
for i = 5, #ARGV do
  told[#told + 1] = call('ZREM', queue .. ':leases', ARGV[i])
  local one = told[#told] == 1 and let_go(ARGV[i])
  if one then answers[ARGV[2]](one) end
  settle()
end
conclude()
return told
