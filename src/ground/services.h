/* What a loader lent (alcove/table.h); all zero without one. */
#ifndef GROUND_SERVICES_H
#define GROUND_SERVICES_H

#include "alcove/table.h"
#include "ground/attributes.h"

extern HIDDEN struct alcove_services services;

#endif
