-- ARGV: now, first and last of the range in the words of Redis, how many. Returns key, value and version of each that has not ended.
local answer, start = {}, ARGV[2]
while #answer < 3 * ARGV[4] do
  local page = call('ZRANGE', values .. ':keys', start, ARGV[3], 'BYLEX', 'LIMIT', 0, ARGV[4])
  for _, key in ipairs(page) do
    local value, version = find(key)
    if value and #answer < 3 * ARGV[4] then
      for _, word in ipairs({key, value, version}) do answer[#answer + 1] = word end
    end
  end
  if #page < tonumber(ARGV[4]) then break end
  start = '(' .. page[#page]
end
return answer
