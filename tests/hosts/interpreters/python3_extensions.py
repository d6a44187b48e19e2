# Python with two extensions, each of which has a loader of its own inside, and loads a copy of the allocator or shares one.
import _ctypes
import ctypes
import os
import shutil

plugins = os.environ["ALCOVE_TEST_PLUGINS"]
files = [os.environ["ALCOVE_TEST_MODULE"], os.path.abspath("second-allocator.so")]
shutil.copy(*files)


def plugin(name):
    return os.path.join(plugins, name + ".so").encode()


def open_extension(name):
    extension = ctypes.CDLL(plugin(name).decode())
    extension.extension_block.restype = ctypes.c_void_p
    extension.extension_block.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    return extension


# A library that knows nothing of any of this.
shutil.copy(plugin("blocks").decode(), "bystander.so")
release = ctypes.CDLL(os.path.abspath("bystander.so")).blocks_release
release.argtypes = [ctypes.c_void_p]

for cycle in range(10):
    one, two = open_extension("extension_one"), open_extension("extension_two")
    shared = cycle % 2 == 1
    blocks = [one.extension_block(files[0].encode(), plugin("blocks")),
              two.extension_block(None if shared else files[1].encode(), plugin("blocks_two"))]
    assert all(blocks)
    with open("/proc/self/maps") as maps:
        assert ("second-allocator.so" in maps.read()) == (not shared)
    for block in blocks[::1 if cycle % 4 < 2 else -1]:
        release(block)
    for extension in (one, two):
        assert extension.extension_end() == 0
        _ctypes.dlclose(extension._handle)
print("10 cycles")
