-- Applies a plan: all its checks, then all its changes, or nothing. It holds no rules of
-- a filesystem.
-- KEYS: tokens of the mount, usage, sessions, graves, queue, held by the mount, and then those
-- that steps point to by index.
-- ARGV: slot ('' when a second application does no harm) and serial of the token, the stamp of
-- this change, the most bytes and the most inodes there may be (0: no limit), and then steps.
-- Checks stand before changes.
--   dir i              a directory that has not been removed
--   live i             an inode
--   fresh i            no inode of this number
--   links i n          it has n names
--   free d name        no entry of this name
--   leads d entry      this entry
--   empty d            no entries
--   parent i ino       the directory's parent is this one
--   has x name yes     the extended attribute is there (1) or not (0)
--   fits i size        the contents may get this long
--   holds i ino data   the contents are those of this number
--   room n             there may be n more inodes
--   new i n field value ...    an inode, of n fields and values
--   set i n field value ...    fields of an inode that exists, and its stamp
--   inc i n                    its number of names
--   add d entry  /  rem d entry
--   drop i x ino held b data block   it has lost its last name: it goes, or waits in the graves
--                              while somebody may have it open. If it is not larger than a
--                              block, and the contents are these, b is all of them (0: no)
--   size i ino size fresh      the contents' length; nothing left stands under a fresh number
--   grow i ino size            the contents are at least so long
--   zero b at n                n bytes of a block from `at` on are zeros; at -1: all of it
--   copy b at n to_b to_at     n bytes of one block into another
--   xset x name value  /  xdel x name
-- Returns {'done'} when it was applied before; {'no', number of the check}; {'full'}; for
-- contents that hold bytes beyond their end {'stale', size, stale, data}; or {'ok'}, then the
-- former stamp of each inode at its first step, then for each drop {'grave'} or {'gone', data,
-- length to remove} and for each size or grow {size before, stale, data}.
local i = 6
local function arg() i = i + 1 return ARGV[i - 1] end
local function key() return KEYS[tonumber(arg())] end

local tokens, usage, sessions, graves, queue, held = unpack(KEYS, 1, 6)
if ARGV[1] ~= '' and call('HGET', tokens, ARGV[1]) == ARGV[2] then return { 'done' } end
local stamp, most_bytes, most_inodes = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])

-- Inodes by index: their number of names and stamp before, and the order of their first steps.
local seen, order = {}, {}
local function look(n)
  if not seen[n] then
    seen[n] = call('HMGET', KEYS[tonumber(n)], 'nlink', 'change')
    order[#order + 1] = n
  end
  return seen[n]
end

local checks, changes, results = {}, {}, {}
local inodes, bytes, failed = 0, 0, nil
function checks.dir()
  local nlink = look(arg())[1]
  return nlink and nlink ~= '0'
end
function checks.live() return look(arg())[1] end
function checks.fresh() return call('EXISTS', key()) == 0 end
function checks.links()
  local nlink = look(arg())[1]
  return nlink == arg()
end
function checks.free()
  local d, from = key(), '[' .. arg() .. '\0'
  return #call('ZRANGEBYLEX', d, from, from .. '\255', 'LIMIT', 0, 1) == 0
end
function checks.leads()
  local d, entry = key(), arg()
  return call('ZSCORE', d, entry)
end
function checks.empty() return call('EXISTS', key()) == 0 end
function checks.parent()
  local n, up = key(), arg()
  return call('HGET', n, 'parent') == up
end
function checks.has()
  local x, name, yes = key(), arg(), arg()
  return call('HEXISTS', x, name) == tonumber(yes)
end
function checks.fits()
  local n, size = key(), tonumber(arg())
  local now = call('HMGET', n, 'size', 'stale', 'data')
  local was, stale = tonumber(now[1] or 0), tonumber(now[2] or 0)
  if size > was and stale > was then failed = { 'stale', text(was), text(stale), now[3] or '' } end
  if size > was and most_bytes > 0
    and tonumber(call('HGET', usage, 'bytes') or 0) + size - was > most_bytes
  then
    failed = { 'full' }
  end
  return true
end
function checks.holds()
  local n, ino, data = key(), arg(), arg()
  return (call('HGET', n, 'data') or ino) == data
end
function checks.room()
  local more = tonumber(arg())
  if most_inodes > 0 and tonumber(call('HGET', usage, 'inodes') or 0) + more > most_inodes then
    failed = { 'full' }
  end
  return true
end

local function fields()
  local n = tonumber(arg())
  i = i + n
  return i - n, i - 1
end
function changes.new()
  local n = key()
  call('HSET', n, unpack(ARGV, fields()))
  inodes = inodes + 1
end
function changes.set()
  local n = arg()
  look(n)
  call('HSET', KEYS[tonumber(n)], 'change', stamp, unpack(ARGV, fields()))
end
function changes.inc()
  local n, by = key(), arg()
  call('HINCRBY', n, 'nlink', by)
end
function changes.add()
  local d, entry = key(), arg()
  call('ZADD', d, 0, entry)
end
function changes.rem()
  local d, entry = key(), arg()
  call('ZREM', d, entry)
end
function changes.drop()
  local n, x, ino, open = arg(), key(), arg(), arg()
  local b, known, block = tonumber(arg()), arg(), tonumber(arg())
  look(n)
  n = KEYS[tonumber(n)]
  if open == '1' or call('ZCARD', sessions) > 1 then
    call('HSET', n, 'change', stamp, 'nlink', 0)
    call('ZADD', graves, -1, ino)
    if open == '1' then call('SADD', held, ino) end
    results[#results + 1] = { 'grave' }
    return
  end
  local now = call('HMGET', n, 'kind', 'size', 'data', 'stale')
  call('DEL', n, x)
  inodes = inodes - 1
  local data, left = now[3] or ino, 0
  if now[1] == 'f' then
    bytes = bytes - tonumber(now[2])
    left = max(tonumber(now[2]), tonumber(now[4] or 0))
    if b > 0 and data == known and left <= block then
      call('DEL', KEYS[b])
      left = 0
    elseif left > 0 then
      call('HSET', queue, data, text(left))
    end
  end
  results[#results + 1] = { 'gone', data, text(left) }
end
function changes.size()
  local n, ino, size, fresh = key(), arg(), tonumber(arg()), arg()
  local now = call('HMGET', n, 'size', 'stale', 'data')
  local was, stale, data = tonumber(now[1]), tonumber(now[2] or 0), now[3] or ino
  bytes = bytes + size - was
  local reach = max(was, stale)
  if size == 0 and reach > 0 then
    call('HSET', queue, data, text(reach))
    call('HSET', n, 'size', 0, 'data', fresh)
    if now[2] then call('HDEL', n, 'stale') end
    stale, data = 0, fresh
  elseif size < was then
    call('HSET', n, 'size', text(size), 'stale', text(reach))
    stale = reach
  else
    call('HSET', n, 'size', text(size))
  end
  results[#results + 1] = { text(was), text(stale), data }
end
function changes.grow()
  local n, ino, size = key(), arg(), tonumber(arg())
  local now = call('HMGET', n, 'size', 'stale', 'data')
  local was, stale = tonumber(now[1]), tonumber(now[2] or 0)
  if size > was then
    call('HSET', n, 'size', text(size))
    bytes = bytes + size - was
  end
  results[#results + 1] = { text(was), text(stale), now[3] or ino }
end
-- Zeros where there is something else; what ends before them goes on with zeros anyway.
local function zero(b, at, n)
  local len = call('STRLEN', b)
  if at + n >= len and at < len then
    call('SET', b, at > 0 and call('GETRANGE', b, 0, at - 1) or '')
  elseif at < len then
    call('SETRANGE', b, at, string.rep('\0', n))
  end
end
function changes.zero()
  local b, at, n = key(), tonumber(arg()), tonumber(arg())
  if at < 0 then
    call('DEL', b)
  else
    zero(b, at, n)
  end
end
function changes.copy()
  local b, at, n, to, to_at = key(), tonumber(arg()), tonumber(arg()), key(), tonumber(arg())
  local some = call('GETRANGE', b, at, at + n - 1)
  if #some > 0 then call('SETRANGE', to, to_at, some) end
  if #some < n then zero(to, to_at + #some, n - #some) end
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
    if failed then return failed end
    changes[word]()
  end
end
if inodes ~= 0 then call('HINCRBY', usage, 'inodes', inodes) end
if bytes ~= 0 then call('HINCRBY', usage, 'bytes', text(bytes)) end
if ARGV[1] ~= '' then call('HSET', tokens, ARGV[1], ARGV[2]) end
local answer = { 'ok' }
for _, n in ipairs(order) do answer[#answer + 1] = seen[n][2] or '' end
for _, result in ipairs(results) do answer[#answer + 1] = result end
return answer
