-- LuaJIT's ffi releases blocks of a module by addresses that it looks up itself: without a call of ours the dynamic linker leads them home.
-- unload() refuses while any block is live.
local ffi = require("ffi")
local prefix = os.getenv("ALCOVE_TEST_PREFIX")
ffi.cdef((([[
int PREFIXload(void **out, const void *options);
int PREFIXunload(void *allocator, unsigned flags);
int PREFIXmodule_open(void *allocator, const char *path, const void *options, void **out);
int PREFIXmodule_close(void *module, unsigned flags, void *report);
void *PREFIXmodule_symbol(void *module, const char *name);
const char *PREFIXerror_message(void);
struct load_options { uint32_t size, flags; const char *path, *prefix; void *search, *context; };
void free(void *block);
void *realloc(void *block, size_t size);
void ways_release(int way, void *block);
]]):gsub("PREFIX", prefix)))
local loader = ffi.load(os.getenv("ALCOVE_TEST_BUILDDIR") .. "/.libs/libalcove-loader.so")
local plugins = os.getenv("ALCOVE_TEST_PLUGINS")

local function checked(name, ...)
    if loader[prefix .. name](...) ~= 0 then
        error(ffi.string(loader[prefix .. "error_message"]()))
    end
end

local path = os.getenv("ALCOVE_TEST_MODULE")
local options = ffi.new("struct load_options", {size = ffi.sizeof("struct load_options"), path = path})
local later
for _ = 1, 10 do
    local allocator, module = ffi.new("void *[1]"), ffi.new("void *[1]")
    checked("load", allocator, options)
    checked("module_open", allocator[0], plugins .. "/blocks.so", nil, module)
    local make = ffi.cast("void *(*)(int, size_t)", loader[prefix .. "module_symbol"](module[0], "blocks_make"))
    later = later or ffi.load(plugins .. "/ways.so")
    for _ = 1, 200 do -- often enough to be compiled
        ffi.C.free(make(0, 100))
        ffi.C.free(ffi.C.realloc(make(0, 100), 5000))
        later.ways_release(0, make(0, 100))
    end
    checked("module_close", module[0], 0, nil)
    checked("unload", allocator[0], 0)
    ffi.C.free(ffi.C.realloc(nil, 100))
end
print("10 cycles")
