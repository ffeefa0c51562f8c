-- Figures for statfs. KEYS[1] is usage. Returns the inodes and bytes in use; the server's
-- memory in use, its limit (0: none), and the machine's.
local usage = call('HMGET', KEYS[1], 'inodes', 'bytes')
local info = redis.pcall('INFO', 'memory')
if type(info) ~= 'string' then info = '' end
local function figure(name)
  return string.match(info, '\n' .. name .. ':(%d+)') or '0'
end
return {
  usage[1] or '0', usage[2] or '0',
  figure('used_memory'), figure('maxmemory'), figure('total_system_memory'),
}
