/* What the library `late` does when it ends, which is after the allocator's destructor ran. */
#ifndef PLUGINS_LATE_H
#define PLUGINS_LATE_H

extern void (*late_call)(void); /* called by its destructor; NULL: nothing */

#endif
