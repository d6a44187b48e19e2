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
      __attribute__((visibility("hidden"))) __thread void *probe_slot;
      void *probe(void);
      void *probe(void)
      {
          void **descriptor;
      #if defined __x86_64__
          __asm__("leaq probe_slot@tlsdesc(%%rip), %0" : "=a"(descriptor));
      #elif defined __aarch64__
          __asm__("adrp x0, :tlsdesc:probe_slot; mov %0, x0" : "=r"(descriptor) : : "x0");
      #else
      #error "no TLS descriptors, or not written yet"
      #endif
          return descriptor[1];
      }
    ]])], [alcove_cv_tlsdesc=yes], [alcove_cv_tlsdesc=no])
    CFLAGS=$alcove_saved_cflags
    LDFLAGS=$alcove_saved_ldflags
  ])
  AS_IF([test "$alcove_cv_tlsdesc" = yes], [alcove_tlsdesc=1], [alcove_tlsdesc=0])
  AC_DEFINE_UNQUOTED([ALCOVE_HAVE_TLSDESC], [$alcove_tlsdesc],
    [1: a TLS descriptor can be read.])
])

# ALCOVE_CHECK_STATIC_ALLOCATOR
# Is there an archive that makes another allocator, jemalloc, part of a program? For a test.
# Substitutes STATIC_ALLOCATOR_LIBS, defines ALCOVE_TEST_STATIC_ALLOCATOR to 1 or 0.
AC_DEFUN([ALCOVE_CHECK_STATIC_ALLOCATOR], [
  AC_CACHE_CHECK([for libjemalloc.a], [alcove_cv_static_allocator], [
    alcove_saved_libs=$LIBS
    alcove_cv_static_allocator="-l:libjemalloc.a -lm -pthread"
    LIBS="$alcove_cv_static_allocator $LIBS"
    AC_LINK_IFELSE([AC_LANG_PROGRAM([[
      #include <stddef.h>
      int mallctl(const char *, void *, size_t *, void *, size_t);
    ]], [[return mallctl("epoch", NULL, NULL, NULL, 0);]])], [], [alcove_cv_static_allocator=no])
    LIBS=$alcove_saved_libs
  ])
  AS_IF([test "$alcove_cv_static_allocator" = no],
    [STATIC_ALLOCATOR_LIBS= alcove_static_allocator=0],
    [STATIC_ALLOCATOR_LIBS=$alcove_cv_static_allocator alcove_static_allocator=1])
  AC_SUBST([STATIC_ALLOCATOR_LIBS])
  AC_DEFINE_UNQUOTED([ALCOVE_TEST_STATIC_ALLOCATOR], [$alcove_static_allocator],
    [1: a test is linked with jemalloc's archive.])
])

# ALCOVE_CHECK_PACKED_RELOCATIONS
# Can the linker write relative relocations as DT_RELR? For a library that a test opens.
AC_DEFUN([ALCOVE_CHECK_PACKED_RELOCATIONS], [
  AC_CACHE_CHECK([for -z pack-relative-relocs], [alcove_cv_packed_relocations], [
    alcove_saved_ldflags=$LDFLAGS
    LDFLAGS="$LDFLAGS -Wl,--fatal-warnings -Wl,-z,pack-relative-relocs"
    AC_LINK_IFELSE([AC_LANG_PROGRAM([], [])], [alcove_cv_packed_relocations=yes], [alcove_cv_packed_relocations=no])
    LDFLAGS=$alcove_saved_ldflags
  ])
  AM_CONDITIONAL([PACKED_RELOCATIONS], [test "$alcove_cv_packed_relocations" = yes])
])
