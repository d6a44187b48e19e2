/* The ELF note that each copy of the loader has (loader/keeper/meeting.h): by it the copies find each other, and an allocator that there is one. */
#ifndef GROUND_LOADER_NOTE_H
#define GROUND_LOADER_NOTE_H

#define LOADER_NOTE_NAME "alcove"
#define LOADER_NOTE_TYPE 1

#endif
