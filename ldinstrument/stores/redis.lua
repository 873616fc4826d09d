-- What a Redis server runs for RedisStore: one section per verb of the store, each atomic and one
-- round trip. `stores/lua.py` reads this file: a section begins with "-- @verb" and is sent with
-- the common part before it; "-- @verb uses x" puts section x in between.
--
-- The sections do what `records` does; tests hold both to each other. A record is a header in JSON
-- and a line per delta, of which only the header is read here. Every key of a script carries the
-- same hash tag (ARGV[1]), so they run on a cluster, too:
--   v<visitor>  the open session, or a tombstone ("-<place> <ended at> <id>")
--   open        sorted set of visitors by the deadline of their session
--   e<place>    an ended session: 16 characters of the owner of its lease, then the record
--   ended       sorted set of places by the time from which they may be handed out: the end of the
--               window in which they ended, or the end of a lease
--   p<id>       a sealed payload: b body, e events, z zipped, s sealed at, a attempts, i digests of
--               the sessions inside
--   out         sorted set of payload ids by the time from which they may be handed out
--   sizes       hash of payload ids to their events, to count what the server evicts
--   o<worker>   the numbers of merges that were made
--   places      how many sessions have ended
--   reported    sorted set of digests of the sessions reported last, by a running number: every
--               worker hears of them, so that each can tell a server that comes back older
--   reports     that number
--   life        the run id of the server when somebody last claimed
--   relearn     is there while workers tell a server that was restarted what they have reported
--   told        set of digests of sessions that were reported before the server was restarted
-- What nobody ever sweeps, the server forgets after a week. Times are milliseconds of the server.

-- @common
local prefix, window = ARGV[1], tonumber(ARGV[2])
local KEEP, VERSION, PLACES, NOBODY = 604800000, 2, 100000, '----------------'
local OLD_EXPOSURE, LINE_BYTES = 300000, 512
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local function whole(number) return string.format('%.0f', number) end
local function divided(text)
  local at = string.find(text, '\n', 1, true)
  if not at then return nil end
  local read, header = pcall(cjson.decode, string.sub(text, 1, at - 1))
  if read and type(header) == 'table' and header.v == VERSION then
    return header, string.sub(text, at)
  end
end
local function joined(header, lines) return cjson.encode(header) .. lines end
local function put(place, text)
  redis.call('SET', prefix .. 'e' .. place, NOBODY .. text, 'PX', KEEP)
  local due = (math.floor(tonumber(place) / PLACES) + 1) * window
  redis.call('ZADD', prefix .. 'ended', due, place)
end
local function wait(text, at)
  local place
  repeat -- a server that evicts may have forgotten how far it had counted
    local number = redis.call('INCR', prefix .. 'places') % PLACES
    place = whole(math.floor(at / window) * PLACES + number)
  until redis.call('EXISTS', prefix .. 'e' .. place) == 0
  put(place, text)
  return place
end
local function finish(one, reason, date) -- not before an exposure that is known already
  one.r, one.o = reason, date
  for _, exposed in pairs(one.x or {}) do one.o = math.max(one.o, exposed) end
end
local function move_on(key, id, text, remember, began, at)
  local tombstone = '-' .. wait(text, at) .. ' ' .. whole(began) .. ' ' .. id
  redis.call('SET', prefix .. 'v' .. key, tombstone, 'PX', remember)
  redis.call('ZREM', prefix .. 'open', key)
end

-- @merge
local key, delta, segments = ARGV[3], cjson.decode(ARGV[4]), ARGV[5]
local idle, maximum, remember = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8]
local held = redis.call('GET', prefix .. 'v' .. key)
local record, lines, previous, place, ended = nil, '', '', nil, nil
if held then
  if string.sub(held, 1, 1) == '-' then
    place, ended, previous = string.match(held, '^%-(%d+) (%d+) (.*)$')
    previous = previous or ''
  else
    record, lines = divided(held)
  end
end
if ARGV[9] ~= '' then
  local seen = prefix .. 'o' .. ARGV[9]
  local fresh = redis.call('SADD', seen, ARGV[10])
  redis.call('EXPIRE', seen, 1800)
  if fresh == 0 then
    if record then return {record.i, record.p or '', 0, cjson.encode(record.c or {}), 0} end
    return {delta.i, '', 0, '{}', 0}
  end
end
local began = now - delta.a
local function refused(one)
  if began > one.h + one.l + idle then return 'idle' end
  if began > one.h + one.s + maximum then return 'maximum' end
  if began < one.h + one.l + (delta.v or 0) then return false end
  local differs, agrees = false, false
  for kind, whose in pairs(delta.c or {}) do
    local known = one.c and one.c[kind]
    if known == whose then agrees = true elseif known then differs = true end
  end
  return differs and not agrees and 'identified'
end
local function over(one)
  return one.h + math.min(one.l + idle, one.s + maximum)
end
local keeps_place, before = false, nil
if place then
  local late, rest = divided(redis.call('GETRANGE', prefix .. 'e' .. place, 16, -1))
  if late then before = place .. ' ' .. ended end
  local in_time = late and (not late.r or began < tonumber(ended) - 1)
  if in_time and late.i == previous and not refused(late) then
    record, lines, keeps_place = late, rest, late.r
    if not keeps_place then
      redis.call('DEL', prefix .. 'e' .. place)
      redis.call('ZREM', prefix .. 'ended', place)
    end
  end
elseif record and record.z then
  place, ended = string.match(record.z, '^(%d+) (%d+)$')
  if place and began < tonumber(ended) - 1 then
    local late, rest = divided(redis.call('GETRANGE', prefix .. 'e' .. place, 16, -1))
    local in_time = late and (not late.r or began < tonumber(ended) - 1)
    if in_time and late.i == record.p and not refused(late) then
      record, lines, keeps_place = late, rest, true
    end
  end
end
if record then
  local reason = refused(record)
  if delta.j and reason then return false end
  if reason then
    record.r, previous = reason, record.i
    local at = math.min(now, over(record))
    if reason == 'identified' then record.o, at = delta.b, now end
    before = wait(joined(record, lines), at) .. ' ' .. whole(began)
    record = nil
  end
end
local opened = 0
if not record and delta.j then return false end
if not record then
  opened, lines = 1, ''
  record = {v = VERSION, i = delta.i, h = now, s = -delta.a, l = -delta.l, u = 0}
  if previous ~= '' and previous ~= delta.i then record.p, record.z = previous, before end
  if delta.n ~= 'session' then record.n = delta.n end
  if ARGV[9] ~= '' then record.g = ARGV[9] .. ':' .. ARGV[10] end
end
local last = now - record.h - delta.l
local known = delta.c or {}
for kind, whose in pairs(delta.k or {}) do known[kind] = whose end
for kind, whose in pairs(known) do
  record.c = record.c or {}
  if last >= record.l or not record.c[kind] then record.c[kind] = whose end
end
if delta.d and (last >= record.l or not record.d) then record.d = delta.d end
record.s = math.min(record.s, now - record.h - delta.a)
record.l = math.max(record.l, last)
record.m = delta.m or record.m
local shift = delta.o - delta.a - delta.b
for mark, date in pairs(delta.x or {}) do
  if date > record.h + record.s - (now - delta.o) - shift - OLD_EXPOSURE then
    record.x = record.x or {}
    record.x[mark] = math.min(date, record.x[mark] or date)
  end
end
for mark, name in pairs(delta.g or {}) do
  record.k = record.k or {}
  record.k[mark] = name
end
record.u = record.u + 1
lines = lines .. '\n[' .. whole(now - delta.o) .. ',' .. segments .. ']'
if delta.e and not keeps_place then finish(record, delta.e, delta.o) end
local text = joined(record, lines)
if keeps_place then
  put(place, text)
elseif delta.e then
  move_on(key, record.i, text, remember, began, now)
else
  local deadline = over(record)
  local kept = math.max(1, deadline - now) + KEEP
  redis.call('SET', prefix .. 'v' .. key, text, 'PX', kept)
  redis.call('ZADD', prefix .. 'open', deadline, key)
end
local length = math.max(record.u, math.floor(#text / LINE_BYTES))
return {record.i, record.p or '', opened, cjson.encode(record.c or {}), length}

-- @end
local key, reason, date, remember = ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local held = redis.call('GET', prefix .. 'v' .. key)
if not held or string.sub(held, 1, 1) == '-' then return false end
local record, lines = divided(held)
if not record then return false end
local deadline = record.h + math.min(record.l + tonumber(ARGV[8]), record.s + tonumber(ARGV[9]))
local at = math.min(now, deadline)
if now <= deadline then
  if ARGV[7] == '1' then
    record.l, record.u = math.max(record.l, now - record.h), record.u + 1
    lines = lines .. '\n[' .. whole(now - date) .. ',' .. date .. ',[[]]]'
  end
  finish(record, reason, tonumber(date))
end
local text = joined(record, lines)
move_on(key, record.i, text, remember, now, at)
return now <= deadline and text

-- @compact
local name = prefix .. 'v' .. ARGV[3]
if redis.call('GET', name) ~= ARGV[4] then return 0 end
redis.call('SET', name, ARGV[5], 'PX', math.max(1, redis.call('PTTL', name)))
for at = 6, #ARGV do wait(ARGV[at], now) end
return 1

-- @held
return redis.call('GET', prefix .. 'v' .. ARGV[3])

-- @claim
local limit, lease, owner, remember = tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6]
local mine, heard, vanished, again = ARGV[8], ARGV[9], 0, 0
local function info(section, field)
  local text = redis.pcall('INFO', section)
  return type(text) == 'string' and string.match(text, field .. ':(%w+)') or ''
end
-- A server that was restarted may have come back as it was earlier: until every worker has told it
-- what was reported since, it hands out nothing.
local life, evicted = info('server', 'run_id'), info('stats', 'evicted_keys')
local known = redis.call('GET', prefix .. 'life')
if life ~= '' and known ~= life then
  redis.call('SET', prefix .. 'life', life)
  if known or mine ~= '' then redis.call('SET', prefix .. 'relearn', 1, 'PX', lease) end
end
local is_new = life ~= '' and mine ~= '' and mine ~= life
if is_new or redis.call('EXISTS', prefix .. 'relearn') == 1 then
  return {0, {}, life, evicted, 0, {}}
end
local tells = redis.call('EXISTS', prefix .. 'told') == 1
local function was_reported(text)
  local record = tells and divided(string.sub(text, 17))
  if not record then return false end
  local identity = record.i .. ' ' .. whole(record.h) .. ' ' .. (record.g or '') .. ' '
    .. whole(record.q or 0)
  return redis.call('SISMEMBER', prefix .. 'told', string.sub(redis.sha1hex(identity), 1, 16)) == 1
end
local silent = redis.call('ZRANGEBYSCORE', prefix .. 'open', '-inf', now, 'WITHSCORES', 'LIMIT', 0,
  limit)
for at = 1, #silent, 2 do
  local key = silent[at]
  local text = redis.call('GET', prefix .. 'v' .. key)
  local record = text and divided(text)
  if record then
    move_on(key, record.i, text, remember, now, tonumber(silent[at + 1]))
  else
    redis.call('ZREM', prefix .. 'open', key)
    if not text then vanished = vanished + 1 end
  end
end
local claimed, batch = {}, nil
local horizon = ARGV[7] == '1' and now + window or now
local due = redis.call('ZRANGEBYSCORE', prefix .. 'ended', '-inf', horizon, 'WITHSCORES', 'LIMIT',
  0, limit + 1000)
for at = 1, #due, 2 do
  if #claimed / 2 + again >= limit then break end
  local place, of = due[at], math.floor(tonumber(due[at]) / PLACES)
  local text = redis.call('GET', prefix .. 'e' .. place)
  if not text then
    redis.call('ZREM', prefix .. 'ended', place)
    vanished = vanished + 1
  elseif (not batch or batch == of)
      and (tonumber(due[at + 1]) <= now or string.sub(text, 1, 16) == NOBODY) then
    batch = of
    if was_reported(text) then
      redis.call('DEL', prefix .. 'e' .. place)
      redis.call('ZREM', prefix .. 'ended', place)
      again = again + 1
    else
      redis.call('SETRANGE', prefix .. 'e' .. place, 0, owner)
      redis.call('ZADD', prefix .. 'ended', now + tonumber(lease), place)
      claimed[#claimed + 1] = place
      claimed[#claimed + 1] = string.sub(text, 17)
    end
  end
end
local news = redis.call('ZRANGEBYSCORE', prefix .. 'reported', '(' .. heard, '+inf', 'WITHSCORES',
  'LIMIT', 0, 2000)
return {vanished, claimed, life, evicted, again, news}

-- @tell
for at = 3, #ARGV do redis.call('SADD', prefix .. 'told', ARGV[at]) end
redis.call('PEXPIRE', prefix .. 'told', KEEP)
return 0

-- @find
-- What the server still holds of sessions though it has evicted the sorted set that names them.
local idle, maximum, found = tonumber(ARGV[5]), tonumber(ARGV[6]), 0
local function add(set, score, member)
  if redis.call('ZSCORE', prefix .. set, member) then return end
  redis.call('ZADD', prefix .. set, score, member)
  found = found + 1
end
local scanned = redis.pcall('SCAN', ARGV[3], 'MATCH', ARGV[4], 'COUNT', 1000)
if scanned.err then return {'0', 0} end -- this user may not
for _, name in ipairs(scanned[2]) do
  local rest = string.sub(name, #prefix + 1)
  local place, id = string.match(rest, '^e(%d+)$'), string.match(rest, '^p(%x+%-.+)$')
  if place then
    add('ended', (math.floor(tonumber(place) / PLACES) + 1) * window, place)
  elseif id then
    add('out', now, id)
    redis.call('HSET', prefix .. 'sizes', id, redis.call('HGET', name, 'e') or 1)
  elseif string.sub(rest, 1, 1) == 'v' then
    local record = divided(redis.call('GET', name) or '')
    if record then
      add('open', record.h + math.min(record.l + idle, record.s + maximum), string.sub(rest, 2))
    end
  end
end
return {scanned[1], found}

-- @end_silent
local start, count = tonumber(ARGV[3]), tonumber(ARGV[4])
local keys = redis.call('ZRANGE', prefix .. 'open', start, start + count - 1)
local moved = 0
for _, key in ipairs(keys) do
  local text = redis.call('GET', prefix .. 'v' .. key)
  local record = text and divided(text)
  local over = record and record.h + math.min(record.l + tonumber(ARGV[6]),
    record.s + tonumber(ARGV[7]))
  if record and over <= now then
    move_on(key, record.i, text, ARGV[5], now, over)
    moved = moved + 1
  end
end
return {#keys, moved}

-- @keep_sealed
local function keep(at, lease)
  while ARGV[at] do
    local id = ARGV[at]
    local name = prefix .. 'p' .. id
    redis.call('HSET', name, 'b', ARGV[at + 1], 'e', ARGV[at + 2], 'z', ARGV[at + 3],
      's', now - tonumber(ARGV[at + 4]), 'a', 1, 'i', ARGV[at + 5])
    redis.call('PEXPIRE', name, KEEP)
    redis.call('ZADD', prefix .. 'out', now + lease, id)
    redis.call('HSET', prefix .. 'sizes', id, ARGV[at + 2])
    at = at + 6
  end
end

-- @seal uses keep_sealed
local owner, lease, places = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local lost = {}
for at = 6, 5 + places do
  local holder = redis.call('GETRANGE', prefix .. 'e' .. ARGV[at], 0, 15)
  if holder ~= owner then lost[#lost + 1] = ARGV[at] end
end
if #lost > 0 then return lost end
for at = 6, 5 + places do
  redis.call('DEL', prefix .. 'e' .. ARGV[at])
  redis.call('ZREM', prefix .. 'ended', ARGV[at])
end
keep(6 + places, lease)
return lost

-- @claim_sealed
local claimed, evicted = {}, 0
local due = redis.call('ZRANGEBYSCORE', prefix .. 'out', '-inf', now, 'LIMIT', 0, ARGV[3])
for _, id in ipairs(due) do
  local name = prefix .. 'p' .. id
  local fields = redis.call('HMGET', name, 'b', 'e', 'z', 's', 'i')
  if fields[1] then
    redis.call('ZADD', prefix .. 'out', now + tonumber(ARGV[4]), id)
    local attempts = redis.call('HINCRBY', name, 'a', 1)
    local age = now - tonumber(fields[4])
    claimed[#claimed + 1] = {id, fields[1], fields[2], fields[3], attempts, age, fields[5] or ''}
  else
    redis.call('ZREM', prefix .. 'out', id)
    evicted = evicted + tonumber(redis.call('HGET', prefix .. 'sizes', id) or 1)
    redis.call('HDEL', prefix .. 'sizes', id)
  end
end
return {evicted, claimed}

-- @acknowledge
local digests = redis.call('HGET', prefix .. 'p' .. ARGV[3], 'i') or ''
for digest in string.gmatch(digests, '%x+') do
  redis.call('ZADD', prefix .. 'reported', redis.call('INCR', prefix .. 'reports'), digest)
end
if digests ~= '' then
  redis.call('ZREMRANGEBYRANK', prefix .. 'reported', 0, -tonumber(ARGV[4]) - 1)
  redis.call('PEXPIRE', prefix .. 'reported', KEEP)
end
redis.call('ZREM', prefix .. 'out', ARGV[3])
redis.call('HDEL', prefix .. 'sizes', ARGV[3])
return redis.call('DEL', prefix .. 'p' .. ARGV[3])

-- @postpone
if redis.call('EXISTS', prefix .. 'p' .. ARGV[3]) == 1 then
  redis.call('ZADD', prefix .. 'out', now + tonumber(ARGV[4]), ARGV[3])
end
return 0

-- @replace uses keep_sealed
redis.call('ZREM', prefix .. 'out', ARGV[3])
redis.call('HDEL', prefix .. 'sizes', ARGV[3])
if redis.call('DEL', prefix .. 'p' .. ARGV[3]) == 1 then keep(4, 0) end
return 0

-- @holdings
local function count(name) return redis.call('ZCARD', prefix .. name) end
return {count('open'), count('ended'), count('out')}
