# ALCOVE_CHECK_TLSDESC
# Can a TLS descriptor be named in inline assembler, and does the linker take it in a shared library?
# Defines ALCOVE_HAVE_TLSDESC to 1 or 0, sets alcove_cv_tlsdesc.
AC_DEFUN([ALCOVE_CHECK_TLSDESC], [
  AC_CACHE_CHECK([for TLS descriptors], [alcove_cv_tlsdesc], [
    alcove_saved_cflags=$CFLAGS
    alcove_saved_ldflags=$LDFLAGS
    CFLAGS="$CFLAGS -fPIC -ftls-model=global-dynamic"
    LDFLAGS="$LDFLAGS -shared"
    AC_LINK_IFELSE([AC_LANG_SOURCE([[
      #ifndef __x86_64__
      #error "written for x86-64 so far"
      #endif
      __attribute__((visibility("hidden"))) __thread void *probe_slot;
      void *probe(void);
      void *probe(void)
      {
          void **descriptor;
          __asm__("lea probe_slot@tlsdesc(%%rip), %%rax" : "=a"(descriptor));
          return descriptor[1];
      }
    ]])], [alcove_cv_tlsdesc=yes], [alcove_cv_tlsdesc=no])
    CFLAGS=$alcove_saved_cflags
    LDFLAGS=$alcove_saved_ldflags
  ])
  AS_IF([test "$alcove_cv_tlsdesc" = yes], [alcove_tlsdesc=1], [alcove_tlsdesc=0])
  AC_DEFINE_UNQUOTED([ALCOVE_HAVE_TLSDESC], [$alcove_tlsdesc],
    [1: a TLS descriptor can be read (lea x@tlsdesc).])
])
