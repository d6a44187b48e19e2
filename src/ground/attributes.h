/* How public functions are declared and named. */
#ifndef GROUND_ATTRIBUTES_H
#define GROUND_ATTRIBUTES_H

#include "config.h"

#define API __attribute__((visibility("default")))
#define API_WEAK __attribute__((visibility("default"), weak))
/* On the hot path: a cache line of its own start, no frame. */
#define API_HOT __attribute__((visibility("default"), hot, aligned(64)))

/* Data of ours that is reached without the detour over the GOT. */
#define HIDDEN __attribute__((visibility("hidden")))

/* Is this build checked by a sanitizer that follows every load? */
#ifdef __has_feature
#define SANITIZED (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#elif defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

/* ThreadSanitizer is not to look: this runs in threads of which it does not know yet, or no longer. */
#if defined __has_feature && defined __clang__
#if __has_feature(thread_sanitizer)
#define UNSEEN_BY_TSAN __attribute__((disable_sanitizer_instrumentation))
#endif
#elif defined __SANITIZE_THREAD__
#define UNSEEN_BY_TSAN __attribute__((no_sanitize_thread))
#endif
#ifndef UNSEEN_BY_TSAN
#define UNSEEN_BY_TSAN
#endif

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#endif
