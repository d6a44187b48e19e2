/* What the plugin `in_text` exports: a library with addresses of functions in its text, which the dynamic linker relocates. */
#ifndef PLUGINS_IN_TEXT_H
#define PLUGINS_IN_TEXT_H

#include <stddef.h>

void *in_text_make(size_t size);
void in_text_release(void *block);

#endif
