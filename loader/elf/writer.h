/*
 * Stores into words of objects, whatever the protection of their pages: a page that is not writable is made so, and is
 * given back the protection that it had. Stores that follow each other in a page share that.
 *
 * Who writes holds one lock, always the same: of two that open a page at once, the second takes for its
 * protection what the first has given it. And no half-made object is written to: its RELRO is yet to come.
 */
#ifndef LOADER_ELF_WRITER_H
#define LOADER_ELF_WRITER_H

#include "elf/protection.h"

#include <errno.h>

#pragma GCC visibility push(hidden)

struct writer {
    const struct object *object;
    struct protection known; /* what was read last of what is mapped */
    uintptr_t writable;      /* a page that is writable without us, or 0 */
    struct protection opened[2]; /* pages that are open now; a word that is not aligned may need two. start 0: none */
    int error; /* errno value of the first page that could not be given back */
};

#define WORD_CHANGED ESTALE /* it doesn't hold what was expected, and was left alone */

/* For words of one object. Nobody else changes protections until the end. */
struct writer writer_of(const struct object *object);

/* Store into a word if it holds `expected`; atomically if it is aligned. 0, WORD_CHANGED, or another errno value: nothing was stored. What an
 * earlier word's page was not given back is told by writer_end(). */
int writer_store(struct writer *writer, void *word, void *expected, void *value);

/* Give all pages back. 0, or the errno value of the first that could not be: it stays writable. Needed after any store, failed ones too. */
int writer_end(struct writer *writer);

/* All three for one word. 0, or an errno value: nothing was stored; or a negative one: it was stored, and the page stays writable. */
int word_store(const struct object *object, void *word, void *expected, void *value);

#pragma GCC visibility pop
#endif
