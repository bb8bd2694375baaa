-- Posts the bodies of a file in turn, and writes what was measured as one line of JSON: the last line of wrk's output.
-- wrk -s wrk.lua http://… -- bodies.hex 'Content-Type: application/json' …          (body_file.py says what is in a file)

local requests, next_request = {}, 0

local function read_digits(line)
  return (line:gsub("%x%x", function(digits) return string.char(tonumber(digits, 16)) end))
end

function init(args)
  local headers = {}
  for place = 2, #args do
    local name, value = args[place]:match("^(.-): (.*)$")
    headers[name] = value
  end
  for line in io.lines(args[1]) do
    requests[#requests + 1] = wrk.format("POST", nil, headers, read_digits(line))
  end
end

function request()
  next_request = next_request % #requests + 1
  return requests[next_request]
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "errors": {"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
