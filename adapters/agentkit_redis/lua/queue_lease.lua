-- Lease tickets. ARGV: now, how many, for how many ms, who asks, then the kinds it serves.
-- Returns in how many ms there may be more (-1: nothing is foreseen; -2: first something has to be brought back), then number, try,
-- deliveries and ticket of each that was leased.
local now = time_ms()
local wanted, until_ms, owner = tonumber(ARGV[2]), now + ARGV[3], ARGV[4]
local until_text = text(until_ms)
local WEIGHTS = {[0] = 1, 3, 8} -- of low, normal, high: a low ticket waits for at most 11 others, so it ages without being counted

local function earlier(a, b) return a.turn < b.turn or (a.turn == b.turn and a.n < b.n) end

-- What waits of one priority, in its order.
local function line_of(priority)
  local line = {}
  if get('r' .. priority) == 0 then return line end
  for i = 5, #ARGV do
    local found = call('ZRANGE', ready_key(priority, ARGV[i]), 0, wanted - 1, 'WITHSCORES')
    for j = 1, #found, 2 do
      line[#line + 1] = {n = found[j], turn = tonumber(found[j + 1]), kind = ARGV[i], priority = priority}
    end
  end
  if #ARGV > 5 then table.sort(line, earlier) end
  return line
end

-- Turns between priorities, dealt by weight as evenly as they can be spread; one with nothing waiting neither gains nor loses.
local function deal(lines, present)
  local chosen, places, credit = {}, {[0] = 1, 1, 1}, {}
  for _, priority in ipairs(present) do credit[priority] = get('c' .. priority) end
  while #chosen < wanted do
    local sum, best = 0, nil
    for _, priority in ipairs(present) do
      if lines[priority][places[priority]] then
        credit[priority] = credit[priority] + WEIGHTS[priority]
        sum = sum + WEIGHTS[priority]
        if not best or credit[priority] >= credit[best] then best = priority end
      end
    end
    if not best then break end
    credit[best] = credit[best] - sum
    chosen[#chosen + 1] = lines[best][places[best]]
    places[best] = places[best] + 1
  end
  for priority, owed in pairs(credit) do set('c' .. priority, owed) end
  return chosen
end

-- Whose turn it is, and whether others may be left.
local function choose()
  local lines, present = {}, {}
  for priority = 0, 2 do
    lines[priority] = line_of(priority)
    if #lines[priority] > 0 then present[#present + 1] = priority end
  end
  if #present > 1 then return deal(lines, present), true end
  local line = present[1] and lines[present[1]] or {}
  return {unpack(line, 1, math.min(wanted, #line))}, #line >= wanted
end

-- Make tickets of one priority the asker's in its stream; what stands there, by number.
local function claim(priority, ids, deliveries, entries)
  local words = {'XCLAIM', stream_of(priority), GROUP, owner, 0}
  for _, id in ipairs(ids) do words[#words + 1] = id end
  for _, word in ipairs({'RETRYCOUNT', deliveries, 'FORCE'}) do words[#words + 1] = word end
  for _, entry in ipairs(call(unpack(words))) do entries[string.sub(entry[1], 1, 14)] = entry[2][2] end
end

local function deliver(chosen)
  local again = get('tried') > 0
  local first, entries = {}, {}
  for _, one in ipairs(chosen) do
    one.deliveries, one.tries = 0, 0
    if again then
      local deliveries, tries = string.match(call('HGET', queue .. ':tried', one.n) or '0:0', '(%d+):(%d+)')
      one.deliveries, one.tries = tonumber(deliveries), tonumber(tries)
    end
    if one.turn > get('v' .. one.priority) then set('v' .. one.priority, one.turn) end
    if one.deliveries > 0 then
      claim(one.priority, {one.n .. '-0'}, one.deliveries + 1, entries)
    else
      first[one.priority] = first[one.priority] or {}
      table.insert(first[one.priority], one.n .. '-0')
    end
  end
  for priority, ids in pairs(first) do claim(priority, ids, 1, entries) end
  return entries
end

local function lease(one, ticket)
  local member = one.priority .. ':' .. one.n
  gather('ZREM', ready_key(one.priority, one.kind), one.n)
  gather('ZREM', queue .. ':age:' .. one.kind, one.n)
  add('r' .. one.priority, -1)
  add('waiting', -1)
  if not ticket then return end -- somebody took it out of the stream by hand
  gather('ZADD', queue .. ':leases', until_text, member .. ':' .. one.tries + 1 .. ':' .. ticket[1] .. ':' .. ticket[4])
  forget(ticket)
  add('leased:' .. one.kind, 1)
  if ticket[7] ~= '' then
    call('ZREM', queue .. ':key:' .. ticket[7], member)
    call('HSET', queue .. ':heads', ticket[7], 'l' .. member)
  end
end

know({'next', 'waiting', 'tried', 'r0', 'r1', 'r2', 'v0', 'v1', 'v2', 'leased:' .. (ARGV[5] or '')})
if get('next') > 0 and get('next') <= now then return {-2} end
local chosen, more = choose()
local answer = {-1}
if #chosen > 0 then
  local entries = deliver(chosen)
  for _, one in ipairs(chosen) do
    local body = entries[one.n]
    lease(one, body and cjson.decode(body))
    if body then
      for _, word in ipairs({one.n, one.tries + 1, one.deliveries + 1, body}) do answer[#answer + 1] = word end
    end
  end
  ends_at(until_ms)
else
  for i = 5, #ARGV do call('DEL', queue .. ':wake:' .. ARGV[i]) end -- the sign that brought us here was an old one
  if get('next') > 0 then answer[1] = math.max(0, get('next') - now) end
end
-- Who leaves something wakes the next.
for i = 5, more and #ARGV or 0 do woken[ARGV[i]] = true end
settle()
wake()
return answer
