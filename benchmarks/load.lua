-- What wrk sends, chosen by its first argument after "--":
--   get      the plain request: a Host field and nothing else
--   browser  benchmarks/browser.http, with another number in place of each {n} for every request
--   mixed    the requests of benchmarks/mixed.py, none of them twice; three more arguments: the file of its templates,
--            the part of the numbers that this load takes, and the seed
--   upload   65,536 bytes of content
-- and one line of JSON at the end instead of text to read.

local sends = "get"
local parts = {}
local number = 0

local function read(name)
  local file = assert(io.open(name, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

-- The pieces of a text between the separators of one byte.
local function split(text, separator)
  local pieces = {}
  for piece in (text .. separator):gmatch("([^" .. separator .. "]*)" .. separator) do
    pieces[#pieces + 1] = piece
  end
  return pieces
end

-- The same arithmetic as in mixed.py; all products are below 2^53, so doubles hold them exactly.
local function mixed(name, part, seed)
  local templates = {}
  for _, text in ipairs(split(read(name), "\2")) do
    if text ~= "" then  -- behind the last separator
      templates[#templates + 1] = split(text, "\1")
    end
  end
  local count, format, concat = #templates, string.format, table.concat
  number = part * 50000000
  local state = seed + part * 1009 + 1
  function request()
    local digits = format("%010.0f", number * 7919 % 10000000000)
    number = number + 1
    state = state * 16807 % 2147483647
    return concat(templates[state % count + 1], digits)
  end
end

function init(args)
  sends = args[1] or sends
  if sends == "upload" then
    wrk.method = "POST"
    wrk.headers["Content-Type"] = "application/octet-stream"
    wrk.body = string.rep("u", 65536)
  elseif sends == "browser" then
    local text = read("benchmarks/browser.http"):gsub("\n", "\r\n")
    for part in (text .. "{n}"):gmatch("(.-){n}") do
      parts[#parts + 1] = part
    end
    -- Defined only here: a script without a request function costs wrk nothing per request.
    function request()
      number = number + 1
      return table.concat(parts, string.format("%08d", number * 7919 % 100000000))
    end
  elseif sends == "mixed" then
    mixed(args[2], tonumber(args[3]), tonumber(args[4]))
  end
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %.6f, "p50": %.6f, "p99": %.6f, "errors": ' ..
    '{"connect": %d, "read": %d, "write": %d, "timeout": %d, "status": %d}}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e6, latency:percentile(99) / 1e6,
    errors.connect, errors.read, errors.write, errors.timeout, errors.status))
end
