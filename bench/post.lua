-- Requests for wrk: POST /charges, each with an Idempotency-Key.
--
-- Arguments, after "--": the prefix of the keys, how many keys there are, what quotes them, the body.
-- With 0 keys each request has a new one; with N, requests go round a ring of N keys.
-- One thread only: the counter is the thread's own, so two threads would send the same keys.
--
-- `response` is not defined on purpose: wrk would hand every response to Lua, and be the slower one.
-- wrk itself counts statuses above 399, and nothing here answers 1xx or 3xx.

local PLACE = "@key@"
local head, tail, prefix, ring
local count = 0

function init(args)
   prefix, ring = args[1] .. "-", tonumber(args[2])
   local headers = {
      ["Content-Type"] = "application/json",
      ["X-Account-Id"] = "acct_1",
      ["Idempotency-Key"] = args[3] .. PLACE .. args[3],
   }
   for name, value in pairs(wrk.headers) do
      headers[name] = value
   end
   local text = wrk.format("POST", "/charges", headers, args[4])
   local first, last = text:find(PLACE, 1, true)
   head, tail = text:sub(1, first - 1), text:sub(last + 1)
end

function request()
   count = count + 1
   if ring > 0 and count > ring then
      count = 1
   end
   return head .. prefix .. string.format("%08d", count) .. tail
end

function done(summary, latency, requests)
   local errors = summary.errors
   io.write(string.format(
      'RESULT {"requests": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d, "connect": %d, "read": %d, '
         .. '"write": %d, "status": %d, "timeout": %d}\n',
      summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
      errors.connect, errors.read, errors.write, errors.status, errors.timeout
   ))
end
