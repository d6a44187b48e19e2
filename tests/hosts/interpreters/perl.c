/* Perl: the one function that calls what DynaLoader found. */
#define PERL_NO_GET_CONTEXT
#include <EXTERN.h>
#include <perl.h>
#include <XSUB.h>

#undef malloc
#undef realloc
#undef free
#include "bridge.h"

/* host::use(malloc, realloc, free, seed), functions by their addresses. */
XS_EXTERNAL(host_use)
{
    dXSARGS;
    if (items != 4)
        croak("host::use: %d arguments", (int)items);
    struct functions functions = {
        .malloc = INT2PTR(void *(*)(size_t), SvUV(ST(0))),
        .realloc = INT2PTR(void *(*)(void *, size_t), SvUV(ST(1))),
        .free = INT2PTR(void (*)(void *), SvUV(ST(2))),
    };
    const char *wrong = bridge_use(&functions, (unsigned)SvUV(ST(3)));
    if (wrong != NULL)
        croak("%s", wrong);
    XSRETURN_EMPTY;
}
