-- Which commands this user may not run; everything is tried on KEYS[1], a key of the volume
-- that does not exist, and leaves nothing behind. KEYS[2] is where a block might be: who may not
-- touch that is refused before anything is tried. ARGV: 'write' when it is to be written.
-- Returns the names of those refused that read, and that write; and 1 when none may write.
local key = KEYS[1]
local function denied(try)
  local reply = redis.pcall(unpack(try))
  local err = type(reply) == 'table' and reply.err
  return err and (string.find(err, 'NOPERM', 1, true) or string.find(err, 'permission', 1, true)
    or string.find(err, 'user executing the script', 1, true))
end
local function refused(tries)
  local names = {}
  for _, try in ipairs(tries) do
    if denied(try) then names[#names + 1] = try[1] end
  end
  return names
end
local reads = refused({
  { 'HMGET', key, 'f' }, { 'HGET', key, 'f' }, { 'HEXISTS', key, 'f' }, { 'HKEYS', key },
  { 'EXISTS', key }, { 'ZRANGEBYLEX', key, '-', '+' }, { 'GETRANGE', key, 0, 0 },
})
if ARGV[1] ~= 'write' then return { reads, {}, 0 } end
-- These do nothing to what is not there.
local removing = {
  { 'DEL', key }, { 'UNLINK', key }, { 'HDEL', key, 'f' }, { 'ZREM', key, 'm' },
  { 'SREM', key, 'm' }, { 'SET', key, '', 'XX' }, { 'SETRANGE', key, 0, '' },
}
local writes = refused(removing)
if #writes == #removing then return { reads, writes, 1 } end
-- What cannot be removed must not be made.
if writes[1] == 'DEL' then return { reads, writes, 0 } end
for _, name in ipairs(refused({
  { 'HSET', key, 'f', 1 }, { 'HINCRBY', key, 'f', 1 }, { 'DEL', key },
  { 'ZADD', key, 0, 'm' }, { 'ZSCORE', key, 'm' }, { 'ZCARD', key }, { 'DEL', key },
  { 'SADD', key, 'm' }, { 'SISMEMBER', key, 'm' }, { 'DEL', key },
  { 'HGETALL', key }, { 'SMEMBERS', key }, { 'ZRANGE', key, 0, 0 },
  { 'ZRANGEBYSCORE', key, 0, 0 }, { 'STRLEN', key }, { 'TIME' },
})) do writes[#writes + 1] = name end
return { reads, writes, 0 }
