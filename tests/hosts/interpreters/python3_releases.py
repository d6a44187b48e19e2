# Python's ctypes releases blocks of a module by addresses that it looks up itself: without a call of ours the dynamic linker leads them home.
# unload() refuses while any block is live.
import ctypes
import os

plugins = os.environ["ALCOVE_TEST_PLUGINS"]
prefix = os.environ["ALCOVE_TEST_PREFIX"]
os.environ[prefix.upper() + "ALLOCATOR"] = os.environ["ALCOVE_TEST_MODULE"]
loader = ctypes.CDLL(os.path.join(os.environ["ALCOVE_TEST_BUILDDIR"], ".libs", "libalcove-loader.so"))
loader[prefix + "error_message"].restype = ctypes.c_char_p


def checked(name, *arguments):
    found = loader[prefix + name]
    found.argtypes = arguments

    def call(*given):
        if found(*given) != 0:
            raise OSError(loader[prefix + "error_message"]().decode())
    return call


allocator_load = checked("load", ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p)
allocator_unload = checked("unload", ctypes.c_void_p, ctypes.c_uint)
module_open = checked("module_open", ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p))
module_close = checked("module_close", ctypes.c_void_p, ctypes.c_uint, ctypes.c_void_p)
module_symbol = loader[prefix + "module_symbol"]
module_symbol.restype, module_symbol.argtypes = ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_char_p)


def function(library, name, result, *arguments):
    """Looked up anew: a library's functions are remembered by name as attributes only."""
    found = library[name]
    found.restype, found.argtypes = result, arguments
    return found


def release_all(make):
    program, libc, later = ctypes.CDLL(None), ctypes.CDLL("libc.so.6"), ctypes.CDLL(os.path.join(plugins, "ways.so"))
    releases = [function(library, "free", None, ctypes.c_void_p) for library in (program, libc, later, ctypes.PyDLL(None))]
    releases.append(lambda block: function(later, "ways_release", None, ctypes.c_int, ctypes.c_void_p)(0, block))
    grow = function(program, "realloc", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    for release in releases:
        release(make(0, 100))
        release(grow(make(0, 100), 5000))
    return releases, grow


kept = []
for _ in range(10):
    allocator, module = ctypes.c_void_p(), ctypes.c_void_p()
    allocator_load(allocator, None)
    module_open(allocator, os.path.join(plugins, "blocks.so").encode(), None, module)
    make = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)(module_symbol(module, b"blocks_make"))
    kept.append(release_all(make))
    for releases, grow in kept:  # those of allocators that have gone, too
        releases[0](make(0, 100))
        releases[0](grow(None, 100))
    module_close(module, 0, None)
    allocator_unload(allocator, 0)
    for releases, grow in kept:
        releases[0](grow(None, 100))
print("10 cycles")
