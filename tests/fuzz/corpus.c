/*
 * A small library with everything in it that a dynamic linker reads, as it is linked: the same source makes each of the
 * corpus (tests/tests.mk), which differ in hash tables, binding, versions and what CORPUS_... adds.
 */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *corpus_work(size_t size);
void *(*corpus_choice(void))(size_t);
int corpus_count(void);

/* Absolute, in data that is written and in data that is made read-only. */
void (*corpus_free)(void *) = free;
static void *(*const makers[])(size_t) = {malloc, corpus_work, NULL};
static char *words[] = {"one", "two", "three", "four"};
#ifndef CORPUS_QUIET
static void *kept;
#endif

#ifdef CORPUS_TLS
static __thread int count = 1;
__thread int corpus_visible = 2;
#else
static int count = 1;
static int corpus_visible = 2;
#endif

void *
corpus_work(size_t size)
{
    char *block = malloc(size), *copy = strdup(words[size % 4]);
    block = realloc(block, size + strlen(copy) + 1);
    if (block != NULL)
        strcpy(block + size, copy);
    free(copy);
    count++;
    return block;
}

void *(*corpus_choice(void))(size_t)
{
    return makers[count % 2];
}

int
corpus_count(void)
{
    return count + corpus_visible;
}

#if defined CORPUS_IFUNC && defined __GLIBC__
static void *
chosen(size_t size)
{
    return calloc(1, size);
}

static __attribute__((used)) void *(*choose(void))(size_t)
{
    return chosen;
}
void *corpus_chosen(size_t size) __attribute__((ifunc("choose")));
#endif

/* What C++ makes of a static variable in an inline function. The quotes are for every assembler. */
#ifdef CORPUS_UNIQUE
__asm__(".data\n.globl corpus_unique\n.type corpus_unique, \"gnu_unique_object\"\n.size corpus_unique, 8\n.balign 8\n"
        "corpus_unique: .zero 8\n.previous");
#endif

#ifdef CORPUS_VERSIONS
#if __has_attribute(symver) /* -flto knows of that only */
#define VERSION(function, version) __attribute__((symver(version)))
#else
#define VERSION(function, version) __asm__(".symver " #function "," version);
#endif
int corpus_old(void);
int corpus_new(void);
VERSION(corpus_old, "corpus_version@CORPUS_1") int corpus_old(void) { return 1; }
VERSION(corpus_new, "corpus_version@@CORPUS_2") int corpus_new(void) { return 2; }
#endif

/* Without these, whatever is not relocated does no harm. */
#ifndef CORPUS_QUIET
static void __attribute__((constructor))
begin(void)
{
    kept = corpus_work(100);
}

static void __attribute__((destructor))
end(void)
{
    corpus_free(kept);
}
#endif
