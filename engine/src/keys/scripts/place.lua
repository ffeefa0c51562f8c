-- A place is where the value of a name can be: the string key `full`, or the
-- field `field` of the hash key `bare`. Either may be missing (nil).
local call = redis.call

-- Stands for a missing key among KEYS. It is reserved, where the empty key may be there.
local NONE = '.dbmount:'

local function place_at(full, bare, field)
  return { full = full ~= NONE and full or nil, bare = bare ~= NONE and bare or nil, field = field }
end

local function typeof(key)
  if not key then return 'none' end
  return call('TYPE', key).ok
end

-- What a place holds: 's' the string, 'f' the field, 'c' a collection under the
-- full key, nil nothing. A string wins over a field of the same name; a hash
-- under the full key is no file of its own.
local function resolve(p)
  local t = typeof(p.full)
  if t == 'string' then return 's', t end
  if t ~= 'none' and t ~= 'hash' then return 'c', t end
  if p.bare then
    local bt = t
    if p.bare ~= p.full then bt = typeof(p.bare) end
    if bt == 'hash' and call('HEXISTS', p.bare, p.field) == 1 then return 'f', bt end
  end
  return nil, t
end

-- Where a new value goes: 's', 'f', or nil when there is no room. `wish` is
-- what the naming rules prefer.
local function room(p, wish)
  local t = typeof(p.full)
  if not p.bare then return t == 'none' and p.full and 's' or nil end
  local bt = t
  if p.bare ~= p.full then bt = typeof(p.bare) end
  local string_fits = p.full and t == 'none'
  local field_fits = bt == 'none' or bt == 'hash'
  if wish == 's' then
    return string_fits and 's' or field_fits and 'f' or nil
  end
  return field_fits and 'f' or string_fits and 's' or nil
end

local function value_of(p, what)
  if what == 's' then return call('GET', p.full) end
  return call('HGET', p.bare, p.field)
end

local function put_value(p, what, value)
  if what == 's' then
    call('SET', p.full, value, 'KEEPTTL')
  else
    call('HSET', p.bare, p.field, value)
  end
end

-- `value` with `data` written at `offset`; a gap is filled with zeros.
local function splice(value, offset, data)
  local size = #value
  if offset == 0 and #data >= size then return data end
  if offset > size then value = value .. string.rep('\0', offset - size) end
  return string.sub(value, 1, offset) .. data .. string.sub(value, offset + #data + 1)
end

-- A side record is `kind perm uid gid atime mtime ctime rdev`, for a symlink
-- followed by a space and the target. Replaces the numbered fields.
local function patch(record, changes)
  local head, tail = {}, record
  for n = 1, 8 do
    local word, rest = string.match(tail, '^(%S+) ?(.*)$')
    head[n], tail = changes[n] or word, rest
  end
  local text = table.concat(head, ' ')
  if string.sub(record, 1, 1) == 'l' then text = text .. ' ' .. tail end
  return text
end

-- Side hashes count their changes in the field '/v', so that a mount can tell
-- the echo of its own change from somebody else's. '/' is the directory itself. The
-- count of one that is new starts at `first`, which no other started at: one that was
-- removed and made again must not come to the same version.
local function bump(side, first)
  local version = call('HINCRBY', side, '/v', 1)
  if call('HLEN', side) == 1 then
    call('DEL', side)
    return 0
  end
  if version == 1 and first then
    call('HSET', side, '/v', first)
    return tonumber(first)
  end
  return version
end

-- How many symlinks and special files a side hash holds.
local function inhabitants(side)
  local found, all = 0, call('HGETALL', side)
  for n = 1, #all, 2 do
    local kind = string.sub(all[n + 1], 1, 1)
    if all[n] ~= '/' and all[n] ~= '/v' and kind ~= 'f' then found = found + 1 end
  end
  return found
end

-- The times of a file that was written, if it has a record. Returns the version of the side
-- hash, or -1 when there is no record.
local function mark_written(side, name, at)
  if side == '' then return -1 end
  local record = call('HGET', side, name)
  if not record then return -1 end
  -- The status may have been changed after the write.
  local changed = string.match(record, '^%S+ %S+ %S+ %S+ %S+ %S+ (%S+)')
  local times = { [6] = at }
  if (tonumber(changed or '') or 0) < tonumber(at) then times[7] = at end
  call('HSET', side, name, patch(record, times))
  return bump(side)
end
