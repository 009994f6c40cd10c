-- This script generates the deliveries that wrk sends: each is a recorded body with a new event id and a new
-- signature.
--
-- BENCH_BODIES names a file that has one recorded body per line. BENCH_SECRET is the secret for the signatures.
-- BENCH_RUN is a number, which must differ between the runs on the same log. At the end, the script prints one
-- line of JSON with times in microseconds. wrk must use only one thread, because each further thread would begin
-- its event ids at 1 and so repeat the event ids of the first thread.

local ffi = require("ffi")

-- wrk is linked with OpenSSL, so one call computes a signature. In Lua, computing a signature would take longer
-- than the server needs for the delivery.
ffi.cdef [[
const void *EVP_sha256(void);
unsigned char *HMAC(const void *type, const void *key, int key_size, const char *body, size_t body_size,
                    unsigned char *digest, unsigned int *digest_size);
]]

local secret = os.getenv("BENCH_SECRET")
local run = tonumber(os.getenv("BENCH_RUN"))
local sha256 = ffi.C.EVP_sha256()
local digest = ffi.new("unsigned char[32]")
local hex = {}
for byte = 0, 255 do
    hex[byte] = string.format("%02x", byte)
end

-- The parts of each body before and after its event id.
local heads, tails = {}, {}
for body in io.lines(os.getenv("BENCH_BODIES")) do
    local first, last = body:find("evt_%x+")
    heads[#heads + 1] = body:sub(1, first - 1)
    tails[#tails + 1] = body:sub(last + 1)
end

local function signature(body)
    ffi.C.HMAC(sha256, secret, #secret, body, #body, digest, nil)
    local digits = {}
    for place = 0, 31 do
        digits[place + 1] = hex[digest[place]]
    end
    return "t=" .. os.time() .. ",v1=" .. table.concat(digits)
end

local sent = 0

function request()
    sent = sent + 1
    local which = sent % #heads + 1
    local body = heads[which] .. string.format("evt_%04x%016x", run, sent) .. tails[which]
    return "POST /webhooks/plexy HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: Plexy-Webhooks/1.0\r\n"
        .. "Accept: */*\r\nContent-Type: application/json\r\nContent-Length: " .. #body
        .. "\r\nPlexy-Signature: " .. signature(body) .. "\r\n\r\n" .. body
end

function done(summary, latency)
    local errors = summary.errors
    local lost = errors.connect + errors.read + errors.write + errors.timeout
    io.write(string.format(
        '\n{"answered": %d, "refused": %d, "lost": %d, "took_us": %d, "p50_us": %d, "p99_us": %d}\n',
        summary.requests, errors.status, lost, summary.duration,
        latency:percentile(50), latency:percentile(99)
    ))
end
