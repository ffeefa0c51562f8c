-- Keeps a mount alive, ends what dead ones held, and lays to rest inodes that nobody can have
-- open any more. KEYS: sessions, graves, queue, usage. ARGV: what the keys of the volume begin
-- with, the mount, the milliseconds of a lease ('0': the mount leaves), how many graves to look
-- at, up to which grave it has seen to it that it holds what it has open, the last inode number
-- that is its own, how many inodes it holds, those, and those that it has let go of.
-- A grave is dug with the score -1, and gets a number here. When every mount has seen it, it is
-- filled, or, while somebody holds the inode, put aside with the score 'inf'.
-- Returns how many graves there are left; the numbers and lengths of the contents to be removed;
-- graves that this mount has not seen, with their numbers; up to which it has; and 1 when there
-- is more to do at once.
local prefix, me, lease, bound = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local sessions, graves, queue, usage = unpack(KEYS)
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function mounts(key, mount) return prefix .. key .. ':' .. mount end
local function let_go(ino)
  if call('ZSCORE', graves, ino) == 'inf' then call('ZADD', graves, 0, ino) end
end
-- A mount's locks end with it, which is told to those that wait for them.
local function ended(mount)
  for _, ino in ipairs(call('SMEMBERS', mounts('o', mount))) do let_go(ino) end
  for _, ino in ipairs(call('SMEMBERS', mounts('k', mount))) do
    call('HDEL', prefix .. 'l:' .. ino, mount)
  end
  call('DEL', mounts('o', mount), mounts('t', mount), mounts('k', mount))
  call('ZREM', sessions, mount)
end
-- A server that came back without its last second must not give out anything twice.
local function at_least(counter, n)
  if tonumber(call('HGET', usage, counter) or 0) < tonumber(n) then
    call('HSET', usage, counter, n)
  end
end
local seen, holds = ARGV[5], tonumber(ARGV[7])
if lease > 0 then
  at_least('mount', me)
  at_least('ino', ARGV[6])
  if tonumber(seen) > tonumber(call('HGET', usage, 'grave') or 0) then seen = '0' end
  call('ZADD', sessions, text(now + lease), me)
  call('HSET', mounts('t', me), 'seen', seen)
  for n = 8, 7 + holds do call('SADD', mounts('o', me), ARGV[n]) end
  for n = 8 + holds, #ARGV do
    call('SREM', mounts('o', me), ARGV[n])
    let_go(ARGV[n])
  end
else
  ended(me)
end
for _, dead in ipairs(call('ZRANGEBYSCORE', sessions, '-inf', '(' .. text(now), 'LIMIT', 0, 16)) do
  ended(dead)
end
local dug = call('ZRANGEBYSCORE', graves, -1, -1, 'LIMIT', 0, bound)
for _, ino in ipairs(dug) do call('ZADD', graves, call('HINCRBY', usage, 'grave', 1), ino) end
local live, all = call('ZRANGE', sessions, 0, -1), nil
for _, mount in ipairs(live) do
  local its = tonumber(call('HGET', mounts('t', mount), 'seen') or 0)
  all = all and math.min(all, its) or its
end
local due = call('ZRANGEBYSCORE', graves, 0, all and text(all) or '(inf', 'LIMIT', 0, bound)
local freed = {}
for _, ino in ipairs(due) do
  local held = false
  for _, mount in ipairs(live) do
    held = held or call('SISMEMBER', mounts('o', mount), ino) == 1
  end
  if held then
    call('ZADD', graves, 'inf', ino)
  else
    local n = prefix .. 'i:' .. ino
    local was = call('HMGET', n, 'nlink', 'kind', 'size', 'data', 'stale')
    if was[1] == '0' then
      call('DEL', n, prefix .. 'x:' .. ino, prefix .. 'd:' .. ino)
      call('HINCRBY', usage, 'inodes', -1)
      if was[2] == 'f' then
        local data, size = was[4] or ino, tonumber(was[3])
        if size > 0 then call('HINCRBY', usage, 'bytes', '-' .. was[3]) end
        local left = max(size, tonumber(was[5] or 0))
        if left > 0 then
          call('HSET', queue, data, text(left))
          freed[#freed + 1] = data
          freed[#freed + 1] = text(left)
        end
      end
    end
    call('ZREM', graves, ino)
  end
end
local unseen = {}
if lease > 0 then
  for _, ino in ipairs(call('ZRANGEBYSCORE', graves, '(' .. seen, '(inf', 'LIMIT', 0, 4 * bound)) do
    unseen[#unseen + 1] = ino
    unseen[#unseen + 1] = call('ZSCORE', graves, ino)
  end
end
local more = (#dug == bound or #due == bound) and 1 or 0
return { call('ZCARD', graves), freed, unseen, seen, more }
