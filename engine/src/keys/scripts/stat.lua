-- What there is. KEYS[1] is the side hash of the directory. ARGV is a sequence of
-- questions, each answered by one array; numbers with `i` are indexes into KEYS,
-- 0 for none:
--   N name full_i bare_i field dir_i   one name:
--        {what, size, type, record, has_dir, dir_record}
--   L name prefix key_i                one key, in a listing:
--        {type, size, record} or for a small hash
--        {'hash', fields, false, field, size, record, field, size, record, ...}
--        where the record is that of the name `prefix`.`field`
--   D dir_i                            one directory: {has_dir, dir_record}
local i = 1
local function arg() i = i + 1 return ARGV[i - 1] end
local function key() return KEYS[tonumber(arg())] end
local function record(name) return call('HGET', KEYS[1], name) end
local LISTED_FIELDS = 256

local function directory(dir)
  if not dir then return 0, false end
  return call('EXISTS', dir), call('HGET', dir, '/')
end

local answers = {}
while ARGV[i] do
  local question = arg()
  local answer
  if question == 'N' then
    local name = arg()
    local p = { full = key(), bare = key(), field = arg() }
    local what, t = resolve(p)
    local size = 0
    if what == 's' then
      size = call('STRLEN', p.full)
    elseif what == 'f' then
      size = call('HSTRLEN', p.bare, p.field)
    elseif what == 'c' then
      size = #render(p.full, t)
    end
    local has, dir_record = directory(key())
    answer = { what or '-', size, t, record(name), has, dir_record }
  elseif question == 'L' then
    local name, prefix, k = arg(), arg(), key()
    local t = typeof(k)
    if t == 'string' then
      answer = { t, call('STRLEN', k), record(name) }
    elseif t == 'hash' then
      local fields = call('HLEN', k)
      answer = { t, fields, false }
      if fields <= LISTED_FIELDS then
        for _, field in ipairs(call('HKEYS', k)) do
          local named = field == '' and prefix or prefix .. '.' .. field
          answer[#answer + 1] = field
          answer[#answer + 1] = call('HSTRLEN', k, field)
          answer[#answer + 1] = record(named)
        end
      end
    elseif t == 'none' then
      answer = { t, 0, record(name) }
    else
      answer = { t, #render(k, t), record(name) }
    end
  elseif question == 'D' then
    answer = { directory(key()) }
  end
  answers[#answers + 1] = answer
end
return answers
