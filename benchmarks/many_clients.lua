-- Like wrk.lua, but requests come from 64 client addresses in turn.
dofile(debug.getinfo(1, "S").source:match("^@(.*)many_clients.lua$") .. "wrk.lua")

local requests, last = {}, 0

function init(args)
  for i = 1, 64 do
    local headers = {}
    for name, value in pairs(wrk.headers) do headers[name] = value end
    headers["X-Forwarded-For"] = "10.0.0." .. i
    requests[i] = wrk.format(nil, nil, headers)
  end
end

function request()
  last = last % #requests + 1
  return requests[last]
end
