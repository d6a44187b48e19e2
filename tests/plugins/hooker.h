/* What the plugin `hooker` exports: it puts a function of its own in place of free in every object's slots, as tools that watch a process do. */
#ifndef PLUGINS_HOOKER_H
#define PLUGINS_HOOKER_H

unsigned hooker_on(void);  /* how many slots it has changed */
void hooker_off(void);
extern _Atomic unsigned long hooker_calls;

#endif
