-- Takes back a string that a direct write made because somebody had deleted it: zeros, and
-- one piece. KEYS[1] the key. ARGV: where the piece starts, where it ends.
-- Returns 1, or 0 when it is not that (any more) and was left alone.
local first, last = tonumber(ARGV[1]), tonumber(ARGV[2])
if typeof(KEYS[1]) ~= 'string' or call('STRLEN', KEYS[1]) ~= last then return 0 end
local head = first > 0 and call('GETRANGE', KEYS[1], 0, math.min(first, 4096) - 1) or ''
if string.find(head, '[^%z]') then return 0 end
return call('DEL', KEYS[1])
