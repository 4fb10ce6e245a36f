-- What a worker writes under its claims. KEYS: with `worker` = 1 the worker and its claims; then meta, journal, inbox, joins, body of
-- each run. ARGV: now, owner, hint, worker, then for each run: fence, first seq, number of entries, what else is to be done (JSON, or
-- empty), result, entries. An answer for each: verdict, inbox_seq, and whether the parent is to be told.
local given, owner, hint = ARGV[1], ARGV[2], ARGV[3]
local guarded = ARGV[4] == '1'
if guarded and redis.call('HGET', KEYS[1], 'dead') ~= '0' then return 'fenced' end

-- Whether entries that were sent before are all here, word for word.
local function all_here(journal, first, count, a)
  local there = redis.call('XRANGE', journal, first .. '-0', (first + count - 1) .. '-0')
  if #there ~= count then return false end
  for i = 1, count do
    if there[i][2][2] ~= ARGV[a + i - 1] then return false end
  end
  return true
end

local function append(meta, journal, seq, first, count, a)
  if first < 1 or first > seq + 1 then return false end
  local old = math.min(seq - first + 1, count)
  if old > 0 and not all_here(journal, first, old, a) then return false end
  for i = old + 1, count do redis.call('XADD', journal, (first + i - 1) .. '-0', 'b', ARGV[a + i - 1]) end
  if first + count - 1 > seq then redis.call('HSET', meta, 'seq', first + count - 1) end
  return true
end

-- A run that is not mine: lost, unless this is a repetition of what has landed.
local function landed_before(row, journal, fence, first, count, release, a)
  if count > 0 then return all_here(journal, first, count, a) end
  if not release or row[3] ~= fence or row[2] ~= '' then return false end
  -- Only my own release can have freed it while I live: a take-over would have declared me dead before.
  local status = tonumber(row[1])
  if release.status >= 4 then return status == release.status end
  return status < 4 or status == 7
end

local function take(meta, inbox, takes)
  for _, one in ipairs(takes) do
    local message = redis.call('HGET', inbox, 'm' .. one[1])
    if message and redis.call('HSETNX', inbox, 't' .. one[1], one[2]) == 1 then
      redis.call('HINCRBY', meta, 'untaken', -1)
      if topic_of(message) == 'cancel' then redis.call('HINCRBY', meta, 'cancels', -1) end
    end
  end
end

-- Close the claim; answers false where the inbox moved on, else whether the parent is to be told.
local function let_go(meta, body, release, result, inbox_seq)
  local now, notify = clock(given), '0'
  if release.status == 3 then
    if release.seen and release.seen ~= tonumber(inbox_seq) then return false end
    redis.call('HSET', meta, 'status', 3, 'owner', '', 'ticketed', '', 'wake_at', release.wake_at or '', 'waits', release.waits,
      'updated', now)
  elseif release.status == 1 then
    redis.call('HSET', meta, 'status', 1, 'owner', '', 'ticketed', release.ticketed and now or '', 'hint', hint, 'updated', now)
  else
    notify = finish(meta, body, release.status, result, now)
  end
  return notify
end

local answers, a = {}, 5
for k = guarded and 3 or 1, #KEYS, 5 do
  local meta, journal, inbox, joins, body = unpack(KEYS, k, k + 4)
  local fence, first, count, more = ARGV[a], tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]), ARGV[a + 3]
  local row = redis.call('HMGET', meta, 'status', 'owner', 'fence', 'seq', 'inbox')
  more = more ~= '' and cjson.decode(more) or {}
  local answer
  if not row[1] then
    answer = {'lost', 0, '0'}
  elseif row[2] ~= owner or row[3] ~= fence then
    answer = {landed_before(row, journal, fence, first, count, more.release, a + 5) and 'ok' or 'lost', row[5], '0'}
  elseif count ~= 0 and not append(meta, journal, tonumber(row[4]), first, count, a + 5) then
    answer = {'lost', row[5], '0'}
  else
    if more.snap then redis.call('HSET', meta, 'snap', more.snap) end
    if more.takes then take(meta, inbox, more.takes) end
    for _, join in ipairs(more.joins or {}) do redis.call('HSETNX', joins, join.key, cjson.encode(join)) end
    if more.clear then redis.call('HSET', meta, 'crashes', 0) end
    local notify = '0'
    if more.release then
      notify = let_go(meta, body, more.release, ARGV[a + 4], row[5])
      if notify and guarded then redis.call('SREM', KEYS[2], fence .. ':' .. more.id) end
    end
    answer = {notify and 'ok' or 'moved', row[5], notify or '0'}
  end
  answers[#answers + 1] = answer
  a = a + 5 + math.max(count, 0)
end
return answers
