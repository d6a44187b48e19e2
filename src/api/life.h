/* What a loader does to the allocator as a whole: as the table's functions of these names. */
#ifndef API_LIFE_H
#define API_LIFE_H

#include "alcove/table.h"

int life_attach(const struct alcove_services *lent);
int life_detach(void);
int life_detach_leaving(void);

#endif
