-- What there is. KEYS[1] is the side hash of the directory. ARGV is a sequence of
-- questions, each answered by one array; numbers with `i` are indexes into KEYS,
-- 0 for none:
--   N name full_i bare_i field dir_i   one name:
--        {what, size, type, record, has_dir, dir_record, ttl}
--   L name prefix key_i                one key, in a listing:
--        {type, size, ttl, record}, or for a hash
--        {'hash', fields, ttl} and when they are few
--        field, size, record, shadowed, field, size, record, shadowed, ...
--        where the record is that of the name `prefix`.`field`, and 1 stands for a
--        field that is shadowed by a string or collection of its name
--   H prefix key_i cursor count        some fields of a large hash:
--        {next cursor, ttl, field, size, record, shadowed, ...}
--   D dir_i                            one directory: {has_dir, dir_record}
--   V dir_i                            how many symlinks and special files are in there
-- A ttl is in milliseconds, negative for none.
local i = 1
local function arg() i = i + 1 return ARGV[i - 1] end
local function key() return KEYS[tonumber(arg())] end
local function record(name) return call('HGET', KEYS[1], name) end
local LISTED_FIELDS = 256

local function directory(dir)
  if not dir then return 0, false end
  return call('EXISTS', dir), call('HGET', dir, '/')
end

local function add_field(answer, prefix, k, field)
  local named = field == '' and prefix or prefix .. '.' .. field
  answer[#answer + 1] = field
  answer[#answer + 1] = call('HSTRLEN', k, field)
  answer[#answer + 1] = record(named)
  local t = field == '' and 'none' or typeof(k .. '.' .. field)
  answer[#answer + 1] = (t == 'none' or t == 'hash') and 0 or 1
end

local answers = {}
while ARGV[i] do
  local question = arg()
  local answer
  if question == 'N' then
    local name = arg()
    local p = { full = key(), bare = key(), field = arg() }
    local what, t = resolve(p)
    local size, ttl = 0, -1
    if what == 'f' then ttl = call('PTTL', p.bare) elseif what then ttl = call('PTTL', p.full) end
    if what == 's' then
      size = call('STRLEN', p.full)
    elseif what == 'f' then
      size = call('HSTRLEN', p.bare, p.field)
    elseif what == 'c' then
      size = #render(p.full, t)
    end
    local has, dir_record = directory(key())
    answer = { what or '-', size, t, record(name), has, dir_record, ttl }
  elseif question == 'L' then
    local name, prefix, k = arg(), arg(), key()
    local t = typeof(k)
    local ttl = call('PTTL', k)
    if t == 'string' then
      answer = { t, call('STRLEN', k), ttl, record(name) }
    elseif t == 'hash' then
      local fields = call('HLEN', k)
      answer = { t, fields, ttl }
      if fields <= LISTED_FIELDS then
        for _, field in ipairs(call('HKEYS', k)) do add_field(answer, prefix, k, field) end
      end
    elseif t == 'none' then
      answer = { t, 0, ttl, record(name) }
    else
      answer = { t, #render(k, t), ttl, record(name) }
    end
  elseif question == 'H' then
    local prefix, k, cursor, count = arg(), key(), arg(), arg()
    if typeof(k) == 'hash' then
      local step = call('HSCAN', k, cursor, 'COUNT', count)
      answer = { step[1], call('PTTL', k) }
      for n = 1, #step[2], 2 do add_field(answer, prefix, k, step[2][n]) end
    else
      answer = { '0', -1 }
    end
  elseif question == 'D' then
    answer = { directory(key()) }
  elseif question == 'V' then
    answer = inhabitants(key())
  end
  answers[#answers + 1] = answer
end
return answers
