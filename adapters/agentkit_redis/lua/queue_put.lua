-- Put tickets that are not there yet. ARGV: now, the greatest depth, then for each caller how many, their delay in ms, the tickets.
-- Returns for each caller 1, or 0 where there would be more than the greatest depth and nothing of that call was written.
local function decoded()
  local calls, runs, i = {}, {}, 3
  while i <= #ARGV do
    local one = {due = now + ARGV[i + 1]}
    for j = i + 2, i + 1 + ARGV[i] do
      local ticket = cjson.decode(ARGV[j])
      one[#one + 1] = {body = ARGV[j], ticket = ticket, at = now_text, turn = '', place = ''}
      runs[#runs + 1] = ticket[1]
    end
    calls[#calls + 1] = one
    i = i + 2 + ARGV[i]
  end
  return calls, runs
end

local function look_up(runs)
  for i = 1, #runs, CHUNK do
    local last = math.min(i + CHUNK - 1, #runs)
    for j, known in ipairs(call('HMGET', queue .. ':ids', unpack(runs, i, last))) do copies[runs[i + j - 1]] = known or '' end
  end
end

-- Those of which no copy waits, each once.
local function fresh(tickets)
  local new, seen = {}, {}
  for _, one in ipairs(tickets) do
    local id = one.ticket[1] .. ':' .. one.ticket[4]
    if not seen[id] and not twin_of(one.ticket) then
      seen[id] = true
      new[#new + 1] = one
    end
  end
  return new
end

local calls, runs = decoded()
local one = calls[1][1].ticket
know({'n', 'waiting', 'v' .. one[6], 'r' .. one[6], 'put:' .. kind_of(one)}) -- the others' are mostly the same
local told = {}
look_up(runs)
for i, tickets in ipairs(calls) do
  local new = fresh(tickets)
  local fits = #new == 0 or get('waiting') + #new <= tonumber(ARGV[2])
  told[i] = fits and 1 or 0
  for _, one in ipairs(fits and new or {}) do enter(one, tickets.due) end
end
conclude()
return told
