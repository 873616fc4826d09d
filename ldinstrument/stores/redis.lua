-- What a Redis server runs for RedisStore: one section per verb of the store, each atomic and one
-- round trip. `stores/redis.py` reads this file: a section begins with "-- @verb" and is sent with
-- the common part before it; "-- @verb uses x" puts section x in between.
--
-- The sections do what `records` does, number for number; tests hold both to each other. Every key
-- of a script carries the same hash tag (ARGV[1]), so they run on a cluster, too:
--   v<visitor>  the open session as JSON, or a tombstone ("-<place> <ended at> <id>")
--   open        sorted set of visitors by the deadline of their session
--   e<place>    an ended session: 16 characters of the owner of its lease, then JSON
--   ended       sorted set of places by the time from which they may be handed out
--   p<id>       a sealed payload: b body, e events, z zipped, s sealed at, a attempts
--   out         sorted set of payload ids by the time from which they may be handed out
--   o<worker>   the numbers of merges that were made
--   places      the last place that was given out
-- What nobody ever sweeps, the server forgets after a week. Times are milliseconds of the server.

-- @common
local prefix = ARGV[1]
local KEEP = 604800000
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local function exact(number)
  local text = string.format('%.15g', number)
  if tonumber(text) == number then return text end
  return string.format('%.17g', number)
end
local function due(name, limit)
  return redis.call('ZRANGEBYSCORE', prefix .. name, '-inf', now, 'LIMIT', 0, limit)
end
local function put(place, text)
  redis.call('SET', prefix .. 'e' .. place, '----------------' .. text, 'PX', KEEP)
  redis.call('ZADD', prefix .. 'ended', now, place)
end
local function wait(text)
  local place = redis.call('INCR', prefix .. 'places')
  put(place, text)
  return place
end
local function move_on(key, id, text, milliseconds, began)
  local tombstone = '-' .. string.format('%.0f %.0f ', wait(text), began or now) .. id
  redis.call('SET', prefix .. 'v' .. key, tombstone, 'PX', milliseconds)
  redis.call('ZREM', prefix .. 'open', key)
end

-- @keep_sealed
local function keep(at, lease)
  while ARGV[at] do
    local name = prefix .. 'p' .. ARGV[at]
    redis.call('HSET', name, 'b', ARGV[at + 1], 'e', ARGV[at + 2], 'z', ARGV[at + 3],
      's', now - tonumber(ARGV[at + 4]), 'a', 1)
    redis.call('PEXPIRE', name, KEEP)
    redis.call('ZADD', prefix .. 'out', now + lease, ARGV[at])
    at = at + 5
  end
end

-- @merge
local key, idle, maximum, most = ARGV[2], tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local delta = cjson.decode(ARGV[3])
local held = redis.call('GET', prefix .. 'v' .. key)
local record, previous, place, ended = nil, '', nil, nil
local function readable(text)
  local whole, found = pcall(cjson.decode, text)
  return whole and type(found) == 'table' and found.b and found
end
if held then
  if string.sub(held, 1, 1) == '-' then
    place, ended, previous = string.match(held, '^%-(%d+) (%d+) (.*)$')
    previous = previous or ''
  else
    record = readable(held)
  end
end
if ARGV[7] ~= '' then
  local seen = prefix .. 'o' .. ARGV[7]
  local fresh = redis.call('SADD', seen, ARGV[8])
  redis.call('EXPIRE', seen, 1800)
  if fresh == 0 then
    if record then return {record.i, record.p or '', 0, cjson.encode(record.c or {})} end
    return {delta.i, '', 0, '{}'}
  end
end
local began = now - delta.a
local function known(marks, mark)
  for at = 1, #marks, 6 do
    if string.sub(marks, at, at + 5) == mark then return true end
  end
  return false
end
local function over(one)
  if began > one.b + one.l + idle then return 'idle' end
  if began > one.b + one.s + maximum then return 'maximum' end
  for kind, whose in pairs(delta.c or {}) do
    if one.c and one.c[kind] and one.c[kind] ~= whose then return 'identified' end
  end
  return nil
end
local stays, before = false, nil
if place then
  local late = readable(redis.call('GETRANGE', prefix .. 'e' .. place, 16, -1))
  if late then before = place .. ' ' .. ended end
  local in_time = late and (not late.r or began < tonumber(ended) - 1)
  if in_time and late.i == previous and not over(late) then
    record, stays = late, late.r
    if not stays then
      redis.call('DEL', prefix .. 'e' .. place)
      redis.call('ZREM', prefix .. 'ended', place)
    end
  end
elseif record and record.z then
  place, ended = string.match(record.z, '^(%d+) (%d+)$')
  if place and began < tonumber(ended) - 1 then
    local late = readable(redis.call('GETRANGE', prefix .. 'e' .. place, 16, -1))
    if late and late.i == record.p and not over(late) then record, stays = late, true end
  end
end
if record then
  local reason = over(record)
  if delta.j and reason then return false end
  if reason then
    record.r = reason
    previous = record.i
    before = string.format('%.0f %.0f', wait(cjson.encode(record)), began)
    record = nil
  elseif record.g then
    local crosses, count = false, 0
    local marks = delta.x or ''
    for at = 1, #marks, 6 do
      if not known(record.x or '', string.sub(marks, at, at + 5)) then crosses = true end
    end
    for _ in pairs(record.g) do count = count + 1 end
    for name in pairs(delta.g or {}) do
      if not record.g[name] then count = count + 1 end
    end
    if crosses or count > most then
      wait(cjson.encode({i = record.i, n = record.n, b = record.b, s = record.s, l = record.l,
        c = record.c, t = {0, 0, 0, 0}, g = record.g, q = 1}))
      record.g = nil
    end
  end
end
local opened = 0
if not record and delta.j then return false end
if not record then
  opened = 1
  record = {i = delta.i, b = now, s = -delta.a, l = -delta.l, t = {0, 0, 0, 0}}
  if previous ~= '' and previous ~= delta.i then record.p, record.z = previous, before end
  if delta.n ~= 'session' then record.n = delta.n end
end
local there = now - record.b
local last = there - delta.l
if delta.d and (last >= record.l or not record.d) then record.d = delta.d end
record.s = math.min(record.s, there - delta.a)
record.l = math.max(record.l, last)
if delta.c then
  record.c = record.c or {}
  for kind, whose in pairs(delta.c) do record.c[kind] = whose end
end
if not record.t then record.t = {0, 0, 0, 0} end
for at = 1, 4 do record.t[at] = record.t[at] + delta.t[at] end
if delta.x then
  local marks = record.x or ''
  for at = 1, #delta.x, 6 do
    local mark = string.sub(delta.x, at, at + 5)
    if #marks < 768 and not known(marks, mark) then marks = marks .. mark end
  end
  record.x = marks
end
local function whole(group)
  if group[5] == '=' then group[5] = group[1] end
  return group
end
for name, coming in pairs(delta.g or {}) do
  record.g = record.g or {}
  whole(coming)
  coming[3], coming[4] = there - coming[3], there - coming[4]
  local mine = record.g[name]
  if mine then
    whole(mine)
    local later = coming[4] > mine[4]
    if coming[4] == mine[4] then
      later = coming[5] ~= '' and (mine[5] == '' or tonumber(coming[5]) > tonumber(mine[5]))
    end
    if later then mine[4], mine[5] = coming[4], coming[5] end
    mine[1] = exact(tonumber(mine[1]) + tonumber(coming[1]))
    mine[2] = mine[2] + coming[2]
    mine[3] = math.min(mine[3], coming[3])
    coming = mine
  end
  if coming[5] == coming[1] then coming[5] = '=' end
  record.g[name] = coming
end
if stays then
  put(place, cjson.encode(record))
elseif delta.e then
  record.r = delta.e
  move_on(key, record.i, cjson.encode(record), ARGV[9], began)
else
  local deadline = record.b + math.min(record.l + idle, record.s + maximum)
  local kept = math.max(1, deadline - now) + KEEP
  redis.call('SET', prefix .. 'v' .. key, cjson.encode(record), 'PX', kept)
  redis.call('ZADD', prefix .. 'open', deadline, key)
end
return {record.i, record.p or '', opened, cjson.encode(record.c or {})}

-- @end
local held = redis.call('GET', prefix .. 'v' .. ARGV[2])
if not held or string.sub(held, 1, 1) == '-' then return false end
local record = cjson.decode(held)
local over = now > record.b + math.min(record.l + tonumber(ARGV[6]), record.s + tonumber(ARGV[7]))
if not over then
  record.r = ARGV[3]
  if ARGV[5] == '1' then record.l = math.max(record.l, now - record.b) end
end
local text = cjson.encode(record)
move_on(ARGV[2], record.i, text, ARGV[4])
return not over and text

-- @claim
local vanished = 0
for _, key in ipairs(due('open', ARGV[2])) do
  local text = redis.call('GET', prefix .. 'v' .. key)
  local whole, record = pcall(cjson.decode, text or '')
  if whole and type(record) == 'table' and record.i then
    move_on(key, record.i, text, ARGV[5])
  else
    redis.call('ZREM', prefix .. 'open', key)
    if not text then vanished = vanished + 1 end
  end
end
local claimed = {}
for _, place in ipairs(due('ended', ARGV[2])) do
  local text = redis.call('GETRANGE', prefix .. 'e' .. place, 16, -1)
  if text == '' then
    redis.call('ZREM', prefix .. 'ended', place)
    vanished = vanished + 1
  else
    redis.call('SETRANGE', prefix .. 'e' .. place, 0, ARGV[4])
    redis.call('ZADD', prefix .. 'ended', now + tonumber(ARGV[3]), place)
    claimed[#claimed + 1] = place
    claimed[#claimed + 1] = text
  end
end
return {vanished, claimed}

-- @seal uses keep_sealed
local owner, places = ARGV[2], tonumber(ARGV[4])
local lost = {}
for at = 5, 4 + places do
  local holder = redis.call('GETRANGE', prefix .. 'e' .. ARGV[at], 0, 15)
  if holder ~= owner then lost[#lost + 1] = ARGV[at] end
end
if #lost > 0 then return lost end
for at = 5, 4 + places do
  redis.call('DEL', prefix .. 'e' .. ARGV[at])
  redis.call('ZREM', prefix .. 'ended', ARGV[at])
end
keep(5 + places, tonumber(ARGV[3]))
return lost

-- @claim_sealed
local claimed = {}
for _, id in ipairs(due('out', ARGV[2])) do
  local name = prefix .. 'p' .. id
  local fields = redis.call('HMGET', name, 'b', 'e', 'z', 's')
  if fields[1] then
    redis.call('ZADD', prefix .. 'out', now + tonumber(ARGV[3]), id)
    local attempts = redis.call('HINCRBY', name, 'a', 1)
    local age = now - tonumber(fields[4])
    claimed[#claimed + 1] = {id, fields[1], fields[2], fields[3], attempts, age}
  else
    redis.call('ZREM', prefix .. 'out', id)
  end
end
return claimed

-- @acknowledge
redis.call('ZREM', prefix .. 'out', ARGV[2])
return redis.call('DEL', prefix .. 'p' .. ARGV[2])

-- @postpone
if redis.call('EXISTS', prefix .. 'p' .. ARGV[2]) == 1 then
  redis.call('ZADD', prefix .. 'out', now + tonumber(ARGV[3]), ARGV[2])
end
return 0

-- @replace uses keep_sealed
redis.call('ZREM', prefix .. 'out', ARGV[2])
if redis.call('DEL', prefix .. 'p' .. ARGV[2]) == 1 then keep(3, 0) end
return 0

-- @holdings
local function count(name) return redis.call('ZCARD', prefix .. name) end
return {count('open'), count('ended'), count('out')}
