-- Applies a plan: all its checks, then all its changes, or nothing.
-- KEYS[1] is the session hash of the mount ('' when a second application does no
-- harm). ARGV[1..4]: slot, serial, milliseconds to remember it, first version of side
-- hashes. When the slot holds the serial, the plan was applied before and {'done'} says so.
-- Then a sequence of steps. Arguments with `i` are indexes into KEYS, 0 for none; a
-- place is `full_i bare_i field`. Checks stand before changes; a check that fails
-- ends the script with {'no', number of the check} and nothing written.
--   free  place side_i name dir_i     nothing has this name
--   is    place side_i name what      the place holds it: s/f as one ('v'), c, or
--                                     the kind letter of a side record
--   room  place wish                  a new value has a place
--   void  dir_i                       no symlinks or special files in there
--   vacant first_i last_i except_i    no target of these pairs of keys exists
--   has   x_i name yes                the extended attribute is there (yes = 1) or not
--   make  place wish side_i name record        an empty value; '' forgets the record
--   record side_i name record                  a side record, '' takes it away
--   remove place side_i name x_i orphan_i ms   a value, or a side record; kept under
--                                              the orphan key for so long if given
--   move  place side_i name x_i  place side_i name x_i wish orphan_i ms
--                                              replaces the target, which is kept under the
--                                              orphan key if given
--   length place size
--   tree  first_i last_i own                   renames pairs of keys, see tree.lua
--   patch side_i name base n value ...  ;      replaces fields of a record
--   touch dir_i at                             a directory's times, if it has a record
--   mark  dir_i record unless_i                a directory exists though nothing is in it; not
--                                              done while that key exists
--   unmark dir_i x_i                           it does no more
--   xset  x_i name value  /  xdel x_i name
-- Returns {'ok', places, side key index, its new version, ...}. The places are a letter for
-- each `make` (s or f: where the value went), for each `remove` (where it was: s, f, g for
-- the last field of a hash, c, - for none), and two for each `move` (source, target).
local i = 5
local function arg() i = i + 1 return ARGV[i - 1] end
local function key() return KEYS[tonumber(arg())] end
local function place() return { full = key(), bare = key(), field = arg() } end

local session = KEYS[1]
if session ~= '' and call('HGET', session, ARGV[1]) == ARGV[2] then return { 'done' } end

local touched, order = {}, {}
local function side()
  local n = tonumber(arg())
  if n > 0 and touched[n] == nil then
    touched[n] = false
    order[#order + 1] = n
  end
  return n
end
local function get_record(n, name) return n > 0 and call('HGET', KEYS[n], name) end
local function set_record(n, name, record)
  if n == 0 then return end
  if record == '' then
    if call('HDEL', KEYS[n], name) == 1 then touched[n] = true end
  else
    call('HSET', KEYS[n], name, record)
    touched[n] = true
  end
end
-- What a name is: 'v' a value, 'c' a collection, a kind letter, or nil.
local function what_is(p, record)
  local what = resolve(p)
  if what == 'c' then return 'c' end
  if what then return 'v' end
  local kind = record and string.sub(record, 1, 1)
  if kind and kind ~= 'f' and kind ~= 'd' then return kind end
  return nil
end

local checks, changes = {}, {}
function checks.free()
  local p, s, name, dir = place(), side(), arg(), key()
  return not what_is(p, get_record(s, name)) and not (dir and call('EXISTS', dir) == 1)
end
function checks.is()
  local p, s, name, what = place(), side(), arg(), arg()
  return what_is(p, get_record(s, name)) == what
end
function checks.room()
  local p, wish = place(), arg()
  return resolve(p) or room(p, wish)
end
function checks.void() return inhabitants(key()) == 0 end
function checks.vacant()
  local first, last, except = tonumber(arg()), tonumber(arg()), key()
  return vacant(first, last, except)
end
function checks.has()
  local x, name, yes = key(), arg(), arg()
  return call('HEXISTS', x, name) == tonumber(yes)
end

local places = ''
local function went(what) places = places .. (what or '-') end
-- Takes the field away; 'g' when the hash is gone with it.
local function drop_field(p)
  call('HDEL', p.bare, p.field)
  return call('EXISTS', p.bare) == 1 and 'f' or 'g'
end
-- Keeps the value of a place under the orphan key for so many milliseconds.
local function keep(p, what, orphan, ms)
  if what == 's' then
    call('RENAME', p.full, orphan)
  else
    call('SET', orphan, call('HGET', p.bare, p.field))
  end
  call('PEXPIRE', orphan, ms)
end

function changes.make()
  local p, wish, s, name, record = place(), arg(), side(), arg(), arg()
  local what = room(p, wish)
  put_value(p, what, '')
  set_record(s, name, record)
  went(what)
end
function changes.record()
  local s, name, record = side(), arg(), arg()
  set_record(s, name, record)
end
function changes.remove()
  local p, s, name, x, orphan, ms = place(), side(), arg(), key(), key(), arg()
  local what = resolve(p)
  if what and what ~= 'c' and orphan then keep(p, what, orphan, ms) end
  if what == 'f' then
    what = drop_field(p)
  elseif what and not (what == 's' and orphan) then
    call('DEL', p.full)
  end
  set_record(s, name, '')
  if x then call('DEL', x) end
  went(what)
end
function changes.move()
  local from, s, name, x = place(), side(), arg(), key()
  local to, to_s, to_name, to_x, wish = place(), side(), arg(), key(), arg()
  local orphan, ms = key(), arg()
  local record = get_record(s, name)
  local what, old = resolve(from), resolve(to)
  local ttl = -1
  if old == 's' then ttl = call('PTTL', to.full) end
  if old and orphan then keep(to, old, orphan, ms) end
  local new = nil
  if what then
    new = old or room(to, wish)
    if what == 's' and new == 's' then
      if call('PTTL', from.full) > 0 then ttl = -1 end
      call('RENAME', from.full, to.full)
    else
      local value = value_of(from, what)
      if what == 's' then
        call('DEL', from.full)
      else
        what = drop_field(from)
      end
      put_value(to, new, value)
    end
    if new == 's' and ttl > 0 then call('PEXPIRE', to.full, ttl) end
  elseif old == 's' then
    call('DEL', to.full)
  elseif old == 'f' then
    drop_field(to)
  end
  set_record(s, name, '')
  set_record(to_s, to_name, record or '')
  if x then
    if call('EXISTS', x) == 1 then
      call('RENAME', x, to_x)
    else
      call('DEL', to_x)
    end
  end
  went(what)
  went(new)
end
function changes.tree()
  local first, last, own = tonumber(arg()), tonumber(arg()), tonumber(arg())
  retree(first, last, own, ARGV[4])
end
function changes.length()
  local p, size = place(), tonumber(arg())
  local what = resolve(p)
  if not what then return end
  local now = what == 's' and call('STRLEN', p.full) or call('HSTRLEN', p.bare, p.field)
  if size == now then return end
  if size == 0 then
    put_value(p, what, '')
  elseif what == 's' and size > now then
    call('SETRANGE', p.full, size - 1, '\0')
  elseif what == 's' then
    put_value(p, what, call('GETRANGE', p.full, 0, size - 1))
  elseif size > now then
    put_value(p, what, value_of(p, what) .. string.rep('\0', size - now))
  else
    put_value(p, what, string.sub(value_of(p, what), 1, size))
  end
end
function changes.patch()
  local s, name, base = side(), arg(), arg()
  local fields = {}
  while ARGV[i] ~= ';' do
    local n = tonumber(arg())
    fields[n] = arg()
  end
  i = i + 1
  local record = get_record(s, name) or base
  if record ~= '' then set_record(s, name, patch(record, fields)) end
end
function changes.touch()
  local s, at = side(), arg()
  local record = get_record(s, '/')
  if record then set_record(s, '/', patch(record, { [6] = at, [7] = at })) end
end
function changes.mark()
  local s, record, unless = side(), arg(), key()
  if unless and call('EXISTS', unless) == 1 then return end
  if not get_record(s, '/') then set_record(s, '/', record) end
end
function changes.unmark()
  local s, x = side(), key()
  call('DEL', KEYS[s])
  touched[s] = false
  if x then call('DEL', x) end
end
function changes.xset()
  local x, name, value = key(), arg(), arg()
  call('HSET', x, name, value)
end
function changes.xdel()
  local x, name = key(), arg()
  call('HDEL', x, name)
end

local step = 0
while ARGV[i] do
  local word = arg()
  if checks[word] then
    step = step + 1
    if not checks[word]() then return { 'no', step } end
  else
    changes[word]()
  end
end
if session ~= '' then
  call('HSET', session, ARGV[1], ARGV[2])
  call('PEXPIRE', session, ARGV[3])
end
local answer = { 'ok', places }
for _, n in ipairs(order) do
  if touched[n] then
    answer[#answer + 1] = n
    answer[#answer + 1] = bump(KEYS[n], ARGV[4])
  end
end
return answer
