/* Where the library that we are in came from. */
#ifndef API_ORIGIN_H
#define API_ORIGIN_H

#include <stdbool.h>

/* Was it there when the program started: the program itself, preloaded, or needed by one that was? To be called where
 * nobody else loads or unloads: from a constructor. False where it is not known. */
bool origin_is_start(void);

/* Is it in a namespace of dlmopen, beside the program's? */
bool origin_is_namespace(void);

/* Is there a copy of the loader in the process? It may be the one that is loading us. */
bool origin_has_loader(void);

#endif
