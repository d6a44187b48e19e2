# Python: ctypes, and threads of the threading module.
import ctypes
import _ctypes
import os
import threading

path = os.environ["ALCOVE_TEST_MODULE"]
prefix = os.environ["ALCOVE_TEST_PREFIX"]


def mapped(name):
    with open("/proc/self/maps") as maps:
        return any(name in line for line in maps)


def function(library, name, result, *arguments):
    found = library[prefix + name]
    found.restype, found.argtypes = result, arguments
    return found


def load():
    library = ctypes.CDLL(path, mode=os.RTLD_NOW | os.RTLD_LOCAL)
    return (library,
            function(library, "malloc", ctypes.c_void_p, ctypes.c_size_t),
            function(library, "realloc", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t),
            function(library, "free", None, ctypes.c_void_p))


def use(malloc, realloc, free, seed):
    blocks = []
    for i in range(33):
        size, content = i ** 4 + 1, (seed + i) % 256
        block = malloc(size)
        ctypes.memset(block, content, size)
        blocks.append((realloc(block, 2 * size), size, content))
    for block, size, content in blocks:
        assert ctypes.string_at(block, size) == bytes([content]) * size
        free(block)


class User(threading.Thread):
    """Uses it, and ends when it has gone."""

    def __init__(self, seed, *functions):
        super().__init__(daemon=True)
        self.seed, self.functions = seed, functions
        self.used, self.unloaded, self.good = threading.Event(), threading.Event(), False

    def run(self):
        try:
            use(*self.functions, self.seed)
            self.good = True
        finally:
            self.used.set()
        self.unloaded.wait()


def start(*functions):
    users = [User(seed, *functions) for seed in (1, 2)]
    for user in users:
        user.start()
    for user in users:
        user.used.wait()
    return users


def end(users):
    for user in users:
        user.unloaded.set()
        user.join()
        assert user.good


preloaded = os.environ.get("ALCOVE_TEST_PRELOADED")
assert preloaded is None or mapped(preloaded)

for _ in range(10):
    library, *functions = load()
    assert mapped(path)
    users = start(*functions)
    use(*functions, 3)
    _ctypes.dlclose(library._handle)
    assert not mapped(path)
    end(users)
print("10 cycles")

# Once more, and it is there until the process ends.
library, *functions = load()
end(start(*functions))
