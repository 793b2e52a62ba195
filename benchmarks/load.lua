-- What wrk sends, chosen by its first argument after "--":
--   get      the plain request: a Host field and nothing else
--   browser  benchmarks/browser.http, with another number in place of each {n} for every request
--   upload   65,536 bytes of content
-- and one line of JSON at the end instead of text to read.

local sends = "get"
local parts = {}
local number = 0

function init(args)
  sends = args[1] or sends
  if sends == "upload" then
    wrk.method = "POST"
    wrk.headers["Content-Type"] = "application/octet-stream"
    wrk.body = string.rep("u", 65536)
  elseif sends == "browser" then
    local file = assert(io.open("benchmarks/browser.http", "rb"))
    local text = file:read("*a"):gsub("\n", "\r\n")
    file:close()
    for part in (text .. "{n}"):gmatch("(.-){n}") do
      parts[#parts + 1] = part
    end
    -- Defined only here: a script without a request function costs wrk nothing per request.
    function request()
      number = number + 1
      return table.concat(parts, string.format("%08d", number * 7919 % 100000000))
    end
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
