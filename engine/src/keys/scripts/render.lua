-- Collections as text: one element a line, `\` and newline escaped. The size
-- that `stat` gives is the length of exactly this text.
local function escape(s)
  return (string.gsub(s, '[\\\n]', { ['\\'] = '\\\\', ['\n'] = '\\n' }))
end

local function word(s)
  return (string.gsub(escape(s), ' ', '\\x20'))
end

local function render(key, t)
  local lines = {}
  if t == 'list' then
    for _, item in ipairs(call('LRANGE', key, 0, -1)) do
      lines[#lines + 1] = escape(item)
    end
  elseif t == 'set' then
    lines = call('SMEMBERS', key)
    for n = 1, #lines do lines[n] = escape(lines[n]) end
    table.sort(lines)
  elseif t == 'zset' then
    local items = call('ZRANGE', key, 0, -1, 'WITHSCORES')
    for n = 1, #items, 2 do
      lines[#lines + 1] = items[n + 1] .. ' ' .. escape(items[n])
    end
  elseif t == 'stream' then
    for _, entry in ipairs(call('XRANGE', key, '-', '+')) do
      local words = { entry[1] }
      for _, w in ipairs(entry[2]) do words[#words + 1] = word(w) end
      lines[#lines + 1] = table.concat(words, ' ')
    end
  else
    lines[1] = '(values of type ' .. t .. ' are not shown)'
  end
  if #lines == 0 then return '' end
  return table.concat(lines, '\n') .. '\n'
end
