/* What the plugins `of_thread` and `of_thread_static` export: blocks that come and go by thread-local variables, which the opening thread has a copy
 * of before anybody is back from dlopen. */
#ifndef PLUGINS_OF_THREAD_H
#define PLUGINS_OF_THREAD_H

#include <stddef.h>

void *of_thread_make(size_t size);
void of_thread_release(void *block);

/* Where the calling thread's copies lead. */
const void *of_thread_malloc(void);
const void *of_thread_free(void);

#endif
