-- Put one message into the inboxes of runs. KEYS: meta, body, inbox of each. ARGV: now, hint, id, topic, text.
-- An answer for each: what became of it; then `woken`, wake, fixed, fence of the timer, or `ended`, notify.
local now, hint, id, topic, text = clock(ARGV[1]), ARGV[2], ARGV[3], ARGV[4], ARGV[5]

local function signal(meta, body, inbox)
  local row = redis.call('HMGET', meta, 'status', 'fence', 'wake_at')
  if not row[1] then return {'unknown'} end
  if redis.call('HEXISTS', inbox, 'm' .. id) == 1 then return {'duplicate'} end
  if ended(row[1]) then return {'ended'} end
  if topic == 'cancel' and row[2] == '0' and row[1] ~= RUNNING then
    receive(meta, inbox, id, topic, text, now)
    return {'accepted', 'ended', finish(meta, body, CANCELLED, text, now), '', row[3] ~= '' and row[2] or ''}
  end
  local woken = deliver(meta, body, inbox, id, topic, text, now, hint)
  if woken[1] then return {'accepted', 'woken', woken[1], woken[2], woken[3]} end
  return {'accepted', ''}
end

local answers = {}
for k = 1, #KEYS, 3 do answers[#answers + 1] = signal(KEYS[k], KEYS[k + 1], KEYS[k + 2]) end
return answers
