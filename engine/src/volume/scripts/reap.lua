-- Keeps a mount alive, ends what dead ones held, and lays to rest inodes that nobody can have
-- open any more. KEYS: sessions, graves, queue, usage. ARGV: what the keys of the volume begin
-- with, the mount, the milliseconds of a lease ('0': the mount leaves), how many graves to look
-- at, how many inodes it holds, those, and those that it has let go of.
-- Returns how many graves there are left, and the numbers of the contents to be removed.
local prefix, me, lease, bound = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- A mount's locks end with it, which is told to those that wait for them.
local function unlock(mount)
  for _, ino in ipairs(call('SMEMBERS', prefix .. 'k:' .. mount)) do
    call('HDEL', prefix .. 'l:' .. ino, mount)
  end
  call('DEL', prefix .. 'k:' .. mount)
end
local mine, holds = prefix .. 'o:' .. me, tonumber(ARGV[5])
if lease > 0 then
  call('ZADD', KEYS[1], text(now + lease), me)
  for n = 6, 5 + holds do call('SADD', mine, ARGV[n]) end
  for n = 6 + holds, #ARGV do call('SREM', mine, ARGV[n]) end
else
  call('ZREM', KEYS[1], me)
  call('DEL', mine, prefix .. 't:' .. me)
  unlock(me)
end
for _, dead in ipairs(call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. text(now), 'LIMIT', 0, 16)) do
  call('DEL', prefix .. 'o:' .. dead, prefix .. 't:' .. dead)
  call('ZREM', KEYS[1], dead)
  unlock(dead)
end
local live = call('ZRANGE', KEYS[1], 0, -1)
for _, ino in ipairs(call('ZRANGEBYSCORE', KEYS[2], -1, -1, 'LIMIT', 0, bound)) do
  call('ZADD', KEYS[2], text(now), ino)
end
-- Where others live, they have the time of a lease to say that they have it open; a mount that
-- leaves does not decide that for them.
local alone = #live == 0 or (#live == 1 and live[1] == me)
local before = alone and '+inf' or lease > 0 and text(now - lease) or '-inf'
local freed = {}
for _, ino in ipairs(call('ZRANGEBYSCORE', KEYS[2], 0, before, 'LIMIT', 0, bound)) do
  local held = false
  for _, mount in ipairs(live) do
    held = held or call('SISMEMBER', prefix .. 'o:' .. mount, ino) == 1
  end
  if held then
    call('ZADD', KEYS[2], text(now), ino)
  else
    local n = prefix .. 'i:' .. ino
    local was = call('HMGET', n, 'nlink', 'kind', 'size', 'data', 'stale')
    if was[1] == '0' then
      call('DEL', n, prefix .. 'x:' .. ino, prefix .. 'd:' .. ino)
      call('HINCRBY', KEYS[4], 'inodes', -1)
      if was[2] == 'f' then
        local data, size = was[4] or ino, tonumber(was[3])
        if size > 0 then call('HINCRBY', KEYS[4], 'bytes', '-' .. was[3]) end
        local left = max(size, tonumber(was[5] or 0))
        if left > 0 then
          call('HSET', KEYS[3], data, text(left))
          freed[#freed + 1] = data
          freed[#freed + 1] = text(left)
        end
      end
    end
    call('ZREM', KEYS[2], ino)
  end
end
return { call('ZCARD', KEYS[2]), freed }
