-- ARGV: now, keys. Returns value and version of each, or two nils.
local answer = {}
for i = 2, #ARGV do
  local value, version = find(ARGV[i])
  answer[#answer + 1] = value or false
  answer[#answer + 1] = version or false
end
return answer
