-- Which commands this user may not run; everything is tried on KEYS[1], a key of the volume
-- that does not exist, and leaves nothing behind. Returns the names of those refused.
local key = KEYS[1]
local tries = {
  { 'HMGET', key, 'f' }, { 'HGET', key, 'f' }, { 'HEXISTS', key, 'f' }, { 'HKEYS', key },
  { 'EXISTS', key }, { 'ZRANGEBYLEX', key, '-', '+' }, { 'GETRANGE', key, 0, 0 },
}
if ARGV[1] == 'write' then
  for _, try in ipairs({
    { 'DEL', key }, { 'UNLINK', key }, { 'HDEL', key, 'f' }, { 'ZREM', key, 'm' },
    { 'SREM', key, 'm' }, { 'SET', key, '', 'XX' }, { 'SETRANGE', key, 0, '' },
    { 'HSET', key, 'f', 1 }, { 'HINCRBY', key, 'f', 1 }, { 'DEL', key },
    { 'ZADD', key, 0, 'm' }, { 'ZSCORE', key, 'm' }, { 'ZCARD', key }, { 'DEL', key },
    { 'SADD', key, 'm' }, { 'SISMEMBER', key, 'm' }, { 'DEL', key },
    { 'HGETALL', key }, { 'SMEMBERS', key }, { 'ZRANGE', key, 0, 0 }, { 'ZRANGEBYSCORE', key, 0, 0 }, { 'STRLEN', key }, { 'TIME' },
  }) do tries[#tries + 1] = try end
end
local function denied(err)
  return string.find(err, 'NOPERM', 1, true) or string.find(err, 'permission', 1, true)
    or string.find(err, 'user executing the script', 1, true)
end
local refused = {}
for _, try in ipairs(tries) do
  local reply = redis.pcall(unpack(try))
  if type(reply) == 'table' and reply.err and denied(reply.err) then
    if try[1] == 'DEL' then return { 'DEL' } end
    refused[#refused + 1] = try[1]
  end
end
return refused
