<?php
// PHP: FFI, which closes a library when nothing refers to it any more. The threads are the bridge's,
// for PHP has none.
set_error_handler(function ($level, $message) {
    throw new ErrorException($message);
});

$path = getenv('ALCOVE_TEST_MODULE');
$prefix = getenv('ALCOVE_TEST_PREFIX');

function check(bool $good, string $what): void
{
    if (!$good) {
        throw new Exception($what);
    }
}

function wrong(?string $what): void
{
    check($what === null, (string)$what);
}

function mapped(): bool
{
    return str_contains(file_get_contents('/proc/self/maps'), $GLOBALS['path']);
}

function load(): FFI
{
    global $path, $prefix;
    return FFI::cdef("void *{$prefix}malloc(size_t); void *{$prefix}realloc(void *, size_t); void {$prefix}free(void *);",
                     $path);
}

function functions(FFI $library, FFI $bridge): FFI\CData
{
    global $prefix;
    $functions = $bridge->new('struct functions');
    foreach (['malloc', 'realloc', 'free'] as $name) {
        $functions->$name = $library->{$prefix . $name};
    }
    return $functions;
}

function use_it(FFI $library, int $seed): void
{
    global $prefix;
    $malloc = $prefix . 'malloc';
    $realloc = $prefix . 'realloc';
    $free = $prefix . 'free';
    $blocks = [];
    for ($i = 0; $i < 33; $i++) {
        $content = str_repeat(chr(($seed + $i) % 256), $i ** 4 + 1);
        $block = $library->$malloc(strlen($content));
        FFI::memcpy($block, $content, strlen($content));
        $blocks[] = [$library->$realloc($block, 2 * strlen($content)), $content];
    }
    foreach ($blocks as [$block, $content]) {
        check(FFI::string($block, strlen($content)) === $content, 'a block has lost its contents');
        $library->$free($block);
    }
}

// In C their types are those of functions, which FFI takes for others than the library's.
$bridge = FFI::cdef('
    struct functions { void *malloc; void *realloc; void *free; };
    const char *bridge_threads_start(const struct functions *);
    const char *bridge_threads_end(void);', $argv[1]);

for ($cycle = 0; $cycle < 10; $cycle++) {
    $library = load();
    check(mapped(), 'not mapped');
    wrong($bridge->bridge_threads_start(FFI::addr(functions($library, $bridge))));
    use_it($library, 3);
    unset($library);
    check(!mapped(), 'still mapped');
    wrong($bridge->bridge_threads_end());
}
echo "10 cycles\n";

// Once more, and it is there until the process ends.
$library = load();
wrong($bridge->bridge_threads_start(FFI::addr(functions($library, $bridge))));
wrong($bridge->bridge_threads_end());
