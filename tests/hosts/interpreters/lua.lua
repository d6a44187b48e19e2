-- Lua: package.loadlib, of an extension, and in the end of the allocator itself.
local path = os.getenv("ALCOVE_TEST_MODULE")
local prefix = os.getenv("ALCOVE_TEST_PREFIX")
local host = assert(package.loadlib(arg[1], "luaopen_host"))()

local function mapped()
  for line in io.lines("/proc/self/maps") do
    if line:find(path, 1, true) then
      return true
    end
  end
  return false
end

for _ = 1, 10 do
  local library = host.load(path)
  assert(mapped())
  host.threads_start()
  host.use(3)
  host.unload(library)
  assert(not mapped())
  host.threads_end()
end
print("10 cycles")

-- Once more by Lua's own means, which closes it with the state.
assert(package.loadlib(path, prefix .. "malloc"))
host.load(path)
host.threads_start()
host.threads_end()
