/* A library that releases others' blocks in every way. Built with lazy binding as ways_lazy, bound at once and with read-only slots as ways_relro. */
#include "ways.h"

#include <dlfcn.h>

typedef void release(void *);

extern void *host_block __attribute__((weak));

static release *const constant[] = {free};
static release *data[] = {free, NULL, NULL}; /* then what the constructor and ways_store() store */
static struct {
    int before;
    release *release;
} __attribute__((packed, aligned(4))) half_aligned;
#if WAYS_PACKED
struct packed {
    char before;
    release *release;
} __attribute__((packed));
static struct packed packed = {1, free};
static const struct packed packed_constant = {1, free};
#endif
static __thread release *of_thread = free;

#ifdef __GLIBC__
void __libc_free(void *block);
void ways_chosen_symbol(void *block) __attribute__((ifunc("choose")));
static void chosen(void *block) __attribute__((ifunc("choose")));

static __attribute__((used)) release *
choose(void)
{
    return free;
}
#endif
#if defined(__GLIBC__) && defined(__x86_64__)
void old_free(void *block);
__asm__(".symver old_free, cfree@GLIBC_2.2.5");
#endif

__attribute__((constructor)) static void
begin(void)
{
    data[1] = free;
    if (&host_block != NULL) {
        free(host_block);
        host_block = NULL;
    }
}

void
ways_store(void)
{
    data[2] = free;
    half_aligned.before = 1;
    half_aligned.release = free;
}

static void
call(release *volatile function, void *block)
{
    function(block);
}

void
ways_release(enum way way, void *block)
{
    switch (way) {
    case WAY_CALL: free(block); return;
    case WAY_ADDRESS: call(free, block); return;
    case WAY_CONSTANT: call(*(release *const volatile *)constant, block); return;
    case WAY_DATA: call(data[0], block); return;
    case WAY_STORED: call(data[1], block); return;
    case WAY_STORED_LATER: call(data[2] != NULL ? data[2] : data[1], block); return;
    case WAY_HALF_ALIGNED: call(half_aligned.before != 0 ? half_aligned.release : free, block); return;
#if WAYS_PACKED
    case WAY_PACKED: call(((volatile struct packed *)&packed)->release, block); return;
    case WAY_PACKED_CONSTANT: call(((const volatile struct packed *)&packed_constant)->release, block); return;
#endif
    case WAY_THREAD: call(of_thread, block); return;
    case WAY_REALLOC: block = realloc(block, 0); return;
    case WAY_REALLOCARRAY: block = reallocarray(block, 0, 8); return;
    case WAY_LOOKED_UP: call((release *)dlsym(RTLD_DEFAULT, "free"), block); return;
#ifdef __GLIBC__
    case WAY_LOOKED_UP_NEXT: call((release *)dlsym(RTLD_NEXT, "free"), block); return;
#else
    case WAY_LOOKED_UP_NEXT: { /* to musl what comes next is what was loaded later, and libc was not */
        release *found = (release *)dlsym(RTLD_NEXT, "free");
        call(found != NULL ? found : free, block);
        return;
    }
#endif
#ifdef __GLIBC__
    case WAY_CHOSEN: chosen(block); return;
    case WAY_CHOSEN_SYMBOL: ways_chosen_symbol(block); return;
    case WAY_LIBC_FREE: __libc_free(block); return;
    case WAY_VERSION: {
        release *found = NULL;
        static const char *const versions[] = {"GLIBC_2.2.5", "GLIBC_2.17"};
        for (unsigned i = 0; i < 2 && found == NULL; i++)
            found = (release *)dlvsym(RTLD_DEFAULT, "free", versions[i]);
        call(found != NULL ? found : free, block);
        return;
    }
#endif
#if defined(__GLIBC__) && defined(__x86_64__)
    case WAY_CFREE: old_free(block); return;
#endif
    case WAYS: return;
    }
}

#ifdef __GLIBC__
void *__libc_malloc(size_t size);

/* Or has a preloaded library taken malloc over? That may have some of libc's other names, and not all; and libc's reallocarray calls its realloc. */
static int
malloc_is_libcs(void)
{
    void *libc = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD), *program = dlopen(NULL, RTLD_LAZY);
    int same = libc != NULL && dlsym(libc, "malloc") == dlsym(program, "malloc");
    if (libc != NULL)
        dlclose(libc);
    dlclose(program);
    return same;
}
#endif

void *
ways_make(enum way way)
{
    void *(*looked_up)(size_t) = NULL;
    switch (way) {
    case WAY_LOOKED_UP: looked_up = (void *(*)(size_t))dlsym(RTLD_DEFAULT, "malloc"); break;
    case WAY_LOOKED_UP_NEXT: looked_up = (void *(*)(size_t))dlsym(RTLD_NEXT, "malloc"); break;
#ifdef __GLIBC__
    case WAY_LIBC_FREE: looked_up = __libc_malloc; break;
    case WAY_REALLOCARRAY:
    case WAY_VERSION:
        if (!malloc_is_libcs())
            return NULL;
        break;
#endif
#if defined(__GLIBC__) && defined(__x86_64__)
    case WAY_CFREE:
        if (!malloc_is_libcs())
            return NULL;
        break;
#endif
    default: break;
    }
    return looked_up != NULL ? looked_up(100) : malloc(100);
}

const void *const *
ways_words(unsigned *count)
{
    static const void *words[8];
    unsigned n = 0;
    words[n++] = (const void *)*(release *const volatile *)constant;
    words[n++] = (const void *)data[0];
    words[n++] = (const void *)data[1];
    words[n++] = (const void *)data[2];
    words[n++] = (const void *)half_aligned.release;
#if WAYS_PACKED
    words[n++] = (const void *)((volatile struct packed *)&packed)->release;
    words[n++] = (const void *)((const volatile struct packed *)&packed_constant)->release;
#endif
    *count = n;
    return words;
}
