-- Change the lists of hints. ARGV: now, then for each change: its kind, the number of its key, a score, a member.
-- A score to add is a number, empty (now) or `+` and seconds from now; one to remove is empty or the highest at which to remove.
local now = clock(ARGV[1])

local function scored(text)
  if text == '' then return now end
  if string.sub(text, 1, 1) == '+' then return string.format('%.6f', tonumber(now) + tonumber(string.sub(text, 2))) end
  return text
end

for i = 2, #ARGV, 4 do
  local verb, key, score, member = ARGV[i], KEYS[tonumber(ARGV[i + 1])], ARGV[i + 2], ARGV[i + 3]
  if verb == 'add' then
    redis.call('ZADD', key, scored(score), member)
  elseif verb == 'ensure' then
    redis.call('ZADD', key, 'NX', scored(score), member)
  elseif score == '' or tonumber(redis.call('ZSCORE', key, member) or 'inf') <= tonumber(score) then
    redis.call('ZREM', key, member)
  end
end
return now
