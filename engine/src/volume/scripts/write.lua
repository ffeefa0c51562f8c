-- Writes contents and makes them count. KEYS: the inode, usage, queue, and blocks.
-- ARGV: how ('w' into the contents, 'r' in place of them, 'a' behind them), stamp, mtime,
-- where the last of it ends, the inode's number, the number of the contents that were
-- written into, the length that 'a' takes the contents to have, the most bytes there may be,
-- and then for each piece the index of its block, where in the block (-1: it is all of it)
-- and the bytes. Pieces that come by other commands are not among them. For 'a', which must not
-- be done twice, the third key is the tokens of the mount, and slot and serial of the token stand
-- before the pieces.
-- Returns {'ok', length, former stamp}; {'gone'}; {'moved', contents, length} when other
-- contents have taken the place, or 'a' has another length; {'stale' or 'full', length, stale}.
local now = call('HMGET', KEYS[1], 'nlink', 'size', 'stale', 'data', 'change', 'ctime')
if not now[1] then return { 'gone' } end
local how, stamp, reach, ino, into = ARGV[1], ARGV[2], tonumber(ARGV[4]), ARGV[5], ARGV[6]
-- A change of attributes may have overtaken this one.
local ctime = tonumber(now[6]) > tonumber(ARGV[3]) and now[6] or ARGV[3]
local size, stale, data = tonumber(now[2]), tonumber(now[3] or 0), now[4] or ino
local first = 9
if how == 'a' then
  if call('HGET', KEYS[3], ARGV[9]) == ARGV[10] then return { 'ok', text(size), stamp } end
  first = 11
end
local replace = how == 'r' and data ~= into
if how ~= 'r' and data ~= into then return { 'moved', data, text(size) } end
if how == 'a' and size ~= tonumber(ARGV[7]) then return { 'moved', data, text(size) } end
local new = replace and reach or max(size, reach)
-- Refuses; pieces that come by other commands will then stand beyond the end.
local function refuse(word)
  if not replace and not ARGV[first] and reach > stale then
    call('HSET', KEYS[1], 'stale', text(reach))
    stale = reach
  end
  return { word, text(size), text(stale) }
end
if reach > size and stale > size and not replace then return refuse('stale') end
local most = tonumber(ARGV[8])
if new > size and most > 0
  and tonumber(call('HGET', KEYS[2], 'bytes') or 0) + new - size > most
then
  return refuse('full')
end
for n = first, #ARGV, 3 do
  local block, at, bytes = KEYS[tonumber(ARGV[n])], ARGV[n + 1], ARGV[n + 2]
  if at == '-1' then
    call('SET', block, bytes)
  else
    call('SETRANGE', block, at, bytes)
  end
end
if how == 'a' then call('HSET', KEYS[3], ARGV[9], ARGV[10]) end
if new ~= size then call('HINCRBY', KEYS[2], 'bytes', text(new - size)) end
if replace then
  local old = max(size, stale)
  if old > 0 then call('HSET', KEYS[3], data, text(old)) end
  if now[3] then call('HDEL', KEYS[1], 'stale') end
  call('HSET', KEYS[1], 'data', into, 'size', text(new), 'mtime', ARGV[3], 'ctime', ctime,
    'change', stamp)
else
  call('HSET', KEYS[1], 'size', text(new), 'mtime', ARGV[3], 'ctime', ctime, 'change', stamp)
end
return { 'ok', text(new), now[5] or '' }
