/* What a loader lent (alcove/table.h); all zero without one. */
#ifndef API_SERVICES_H
#define API_SERVICES_H

#include "alcove/table.h"
#include "ground/attributes.h"

extern HIDDEN struct alcove_services services;

#endif
