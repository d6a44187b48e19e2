# Python as a host: the loader through ctypes, and Debian's SQLite as a module with a heap of its own.
import ctypes
import os
import threading

path = os.environ["ALCOVE_TEST_MODULE"]
prefix = os.environ["ALCOVE_TEST_PREFIX"]
SQLITE = "libsqlite3.so.0"


class LoadOptions(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32), ("flags", ctypes.c_uint32), ("path", ctypes.c_char_p), ("prefix", ctypes.c_char_p), ("search", ctypes.c_void_p),
                ("context", ctypes.c_void_p)]


class HeapStats(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in (
        "size", "live_blocks", "live_bytes", "peak_bytes", "active_bytes", "cached_bytes", "limit", "total_allocs",
        "total_bytes", "total_frees", "limit_refused")] + [("room", ctypes.c_uint64 * 21)]


class ModuleStats(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint64), ("name", ctypes.c_char_p), ("heap", HeapStats), ("released_outside", ctypes.c_uint64),
                ("released_foreign", ctypes.c_uint64), ("imports_routed", ctypes.c_uint32), ("room_32", ctypes.c_uint32),
                ("room", ctypes.c_uint64 * 27)]


class Report(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint64), ("name", ctypes.c_char * 64), ("heap", HeapStats), ("released_outside", ctypes.c_uint64),
                ("released_foreign", ctypes.c_uint64), ("kept", ctypes.c_int), ("room_int", ctypes.c_int),
                ("room", ctypes.c_uint64 * 20)]


loader = ctypes.CDLL(os.path.join(os.environ["ALCOVE_TEST_BUILDDIR"], ".libs", "libalcove-loader.so"))


def function(name, result, *arguments):
    found = loader[prefix + name]
    found.restype, found.argtypes = result, arguments
    return found


error_message = function("error_message", ctypes.c_char_p)


def checked(name, *arguments):
    found = function(name, ctypes.c_int, *arguments)

    def call(*given):
        if found(*given) != 0:
            raise OSError(error_message().decode())
    return call


allocator_load = checked("load", ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(LoadOptions))
allocator_unload = checked("unload", ctypes.c_void_p, ctypes.c_uint)
module_open = checked("module_open", ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p))
module_stats = checked("module_stats", ctypes.c_void_p, ctypes.POINTER(ModuleStats))
module_limit = checked("module_limit", ctypes.c_void_p, ctypes.c_uint64)
module_close = checked("module_close", ctypes.c_void_p, ctypes.c_uint, ctypes.POINTER(Report))
module_symbol = function("module_symbol", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)


def mapped(name):
    with open("/proc/self/maps") as maps:
        return any(name in line for line in maps)


def load():
    allocator, module = ctypes.c_void_p(), ctypes.c_void_p()
    allocator_load(allocator, LoadOptions(path=path.encode()))
    module_open(allocator, SQLITE.encode(), None, module)
    return allocator, module


def heap_of(module):
    now = ModuleStats()
    module_stats(module, now)
    return now.heap


class SQLite:
    """What of the module's functions is called here."""

    def __init__(self, module):
        for name, *arguments in (("open", ctypes.c_char_p, ctypes.POINTER(ctypes.c_void_p)),
                                 ("exec", ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p,
                                  ctypes.c_void_p),
                                 ("close", ctypes.c_void_p),
                                 ("shutdown",)):
            address = module_symbol(module, b"sqlite3_" + name.encode())
            setattr(self, name, ctypes.CFUNCTYPE(ctypes.c_int, *arguments)(address))

    def fill(self):
        base = ctypes.c_void_p()
        assert self.open(b":memory:", base) == 0
        assert self.exec(base, b"create table t as with recursive n(i) as (select 1 union all select i + 1 from n"
                               b" where i < 5000) select i, hex(randomblob(50)) from n", None, None, None) == 0
        return base


class User(threading.Thread):
    """Uses the module, and ends when it and the allocator have gone."""

    def __init__(self, sqlite):
        super().__init__(daemon=True)
        self.sqlite, self.used, self.unloaded, self.good = sqlite, threading.Event(), threading.Event(), False

    def run(self):
        try:
            self.good = self.sqlite.close(self.sqlite.fill()) == 0
        finally:
            self.used.set()
        self.unloaded.wait()


preloaded = os.environ.get("ALCOVE_TEST_PRELOADED")
assert preloaded is None or mapped(preloaded)

for _ in range(10):
    allocator, module = load()
    assert mapped(path)
    sqlite = SQLite(module)
    users = [User(sqlite), User(sqlite)]
    for user in users:
        user.start()
    base = sqlite.fill()
    assert heap_of(module).live_bytes > 500000
    assert sqlite.close(base) == 0
    for user in users:
        user.used.wait()
    assert sqlite.shutdown() == 0
    report = Report()
    module_close(module, 0, report)
    assert report.name.decode() == SQLITE and report.heap.live_blocks == 0 and not report.kept
    assert report.heap.total_bytes > 3 * 500000
    allocator_unload(allocator, 0)
    assert not mapped(path) and not mapped(SQLITE[:-2])
    for user in users:
        user.unloaded.set()
        user.join()
        assert user.good
print("10 cycles")

# Once more, and they are there until the process ends: a module of Python's own is linked to that SQLite,
# and gets an exception when the heap's limit is reached.
allocator, module = load()
import sqlite3
connection = sqlite3.connect(":memory:", isolation_level=None)
connection.execute("create table t (text)")
module_limit(module, heap_of(module).active_bytes + (2 << 20))
try:
    for _ in range(100):
        connection.execute("insert into t values (?)", ("x" * 100000,))
except MemoryError:
    pass
assert heap_of(module).limit_refused > 0
assert connection.execute("select length(text) from t").fetchone() == (100000,)
