"""The Lua scripts of the Redis queue: each checks first, then writes, because Lua in Redis has no rollback.

KEYS and ARGV are listed above each. Only commands of Redis 7.0 are used.
"""

# Is ARGV[3] still the holder of entry ARGV[2] in group ARGV[1] of stream KEYS[1], and is it still the task with nonce
# ARGV[4]? A missing stream or group (a wipe) means no; ids can repeat after a wipe, nonces do not.
_HOLDER_OR_RETURN_0 = """
local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1], ARGV[2], ARGV[2], 1)
if pending['err'] then
  if string.find(pending['err'], 'NOGROUP', 1, true) then return 0 end
  return pending
end
if #pending == 0 or pending[1][2] ~= ARGV[3] then return 0 end
local entry = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])
if #entry == 0 then return 0 end
local nonce = nil
for i = 1, #entry[1][2], 2 do
  if entry[1][2][i] == 'nonce' then nonce = entry[1][2][i + 1] end
end
if nonce ~= ARGV[4] then return 0 end
"""

# The last entry that a group has given to a worker.
_DELIVERED = """
local function delivered(stream, group)
  if redis.call('EXISTS', stream) == 0 then return '0-0' end
  for _, fields in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local found = {}
    for i = 1, #fields, 2 do found[fields[i]] = fields[i + 1] end
    if found['name'] == group then return found['last-delivered-id'] end
  end
  return '0-0'
end
"""

# KEYS: tasks stream, rollouts stream, job key. ARGV: group, entry id, worker, nonce, results...
# A job that is closed gets no results, so that a late one never makes its stream again.
# Entries leave the stream in its order, cut off before the first that is held or waits: when one is deleted after a
# held one, Redis loses the group's `lag` (null), which autoscaling reads.
COMPLETE = (
    _DELIVERED
    + _HOLDER_OR_RETURN_0
    + """
if redis.call('EXISTS', KEYS[3]) == 1 then
  for i = 5, #ARGV do redis.call('XADD', KEYS[2], '*', 'result', ARGV[i]) end
end
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
local first = redis.call('XPENDING', KEYS[1], ARGV[1])[2]
if not first then
  local ahead = redis.call('XRANGE', KEYS[1], '(' .. delivered(KEYS[1], ARGV[1]), '+', 'COUNT', 1)
  if #ahead > 0 then first = ahead[1][1] end
end
if first then redis.call('XTRIM', KEYS[1], 'MINID', first) else redis.call('XTRIM', KEYS[1], 'MAXLEN', 0) end
return 1
"""
)

# KEYS: tasks stream. ARGV: group, entry id, worker, nonce.
RENEW = (
    _HOLDER_OR_RETURN_0
    + """
return #redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[3], 0, ARGV[2], 'JUSTID')
"""
)

# KEYS: tasks stream. ARGV: group, idle limit in milliseconds, the only worker to look at ('' for all).
# Returns the names that it deleted. DELCONSUMER takes a worker's pending tasks with it: one that holds any stays.
FORGET_WORKERS = """
local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
if consumers['err'] then
  if string.find(consumers['err'], 'NOGROUP', 1, true) or string.find(consumers['err'], 'no such key', 1, true) then
    return {}
  end
  return consumers
end
local forgotten = {}
for _, fields in ipairs(consumers) do
  local consumer = {}
  for i = 1, #fields, 2 do consumer[fields[i]] = fields[i + 1] end
  local meant = ARGV[3] == '' or ARGV[3] == consumer['name']
  if meant and consumer['pending'] == 0 and consumer['idle'] >= tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer['name'])
    table.insert(forgotten, consumer['name'])
  end
end
return forgotten
"""

# KEYS: tasks stream. ARGV: group, entry ids... Returns those that neither wait nor are held. A completed one may still
# be in the stream.
GONE = (
    _DELIVERED
    + """
local gone = {}
local last = delivered(KEYS[1], ARGV[1])
for i = 2, #ARGV do
  local entry = ARGV[i]
  local there = #redis.call('XRANGE', KEYS[1], entry, entry) > 0
  local waits = there and #redis.call('XRANGE', KEYS[1], '(' .. last, entry, 'COUNT', 1) > 0
  local held = there and not waits and #redis.call('XPENDING', KEYS[1], ARGV[1], entry, entry, 1) > 0
  if not waits and not held then table.insert(gone, entry) end
end
return gone
"""
)

# KEYS: owner key. ARGV: owner, time to live in milliseconds.
HOLD = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

# KEYS: owner key. ARGV: owner.
RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""
