-- Which commands this user may not run. ARGV[1] is 'read' or 'write'. Everything is tried on
-- KEYS[1], a reserved key that does not exist, and leaves nothing behind.
-- Returns the names of the commands that are refused.
local key = KEYS[1]
local tries = {
  { 'TYPE', key }, { 'EXISTS', key }, { 'PTTL', key }, { 'STRLEN', key }, { 'GET', key },
  { 'GETRANGE', key, 0, 0 }, { 'HGET', key, 'f' }, { 'HGETALL', key }, { 'HKEYS', key },
  { 'HLEN', key }, { 'HSTRLEN', key, 'f' }, { 'HEXISTS', key, 'f' }, { 'HSCAN', key, 0 },
  { 'LRANGE', key, 0, 0 }, { 'SMEMBERS', key }, { 'ZRANGE', key, 0, 0 },
  { 'XRANGE', key, '-', '+' }, { 'OBJECT', 'ENCODING', key },
}
if ARGV[1] == 'write' then
  -- DEL comes before what it must clean up after.
  for _, try in ipairs({
    { 'DEL', key }, { 'SET', key, '', 'XX', 'KEEPTTL' }, { 'SETRANGE', key, 0, '' },
    { 'HDEL', key, 'f' }, { 'PEXPIRE', key, 1000 }, { 'RENAME', key, key },
    { 'HSET', key, 'f', 1 }, { 'HINCRBY', key, 'f', 1 }, { 'DEL', key },
  }) do tries[#tries + 1] = try end
end
-- How servers of several ages say that a user may not.
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
