local call = redis.call
local function max(a, b) return a > b and a or b end
-- Whole numbers up to 2^53 without an exponent.
local function text(n) return string.format('%.0f', n) end
