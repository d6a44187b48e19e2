/* What the plugin `half_made` exports, and what it calls while it is opened. */
#ifndef PLUGINS_HALF_MADE_H
#define PLUGINS_HALF_MADE_H

#include <stdlib.h>

/* Are there functions that are chosen while an object is relocated? musl and other processors' compilers know of none. */
#if defined __GLIBC__ && (defined __x86_64__ || defined __aarch64__)
#define HALF_MADE_POSSIBLE 1
#else
#define HALF_MADE_POSSIBLE 0
#endif

/* The host's: called when the plugin's imports are bound, and words beside them are not. */
void host_half_made(void) __attribute__((weak));

int half_made_is_ready(void);
void half_made_release(void *block);

#endif
