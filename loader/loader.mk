# The loader: libalcove-loader, what a host links.
# libloadcore.la holds its objects, so that the unit tests can reach what the library hides.

lib_LTLIBRARIES += libalcove-loader.la
noinst_LTLIBRARIES += libloadcore.la

libloadcore_la_SOURCES = \
	loader/crossings.c loader/elf_file.c loader/error.c loader/guard.c loader/imports.h \
	loader/imports.c loader/load.c loader/loader.h loader/module.c loader/objects.c \
	loader/routes.h loader/routes.c loader/services.c

libloadcore_la_CPPFLAGS = $(AM_CPPFLAGS) -DALCOVE_LIBDIR_MODULE='"$(libdir)/libalcove@S@.so"'
libloadcore_la_CFLAGS = $(AM_CFLAGS) -fvisibility=hidden -fno-semantic-interposition
libloadcore_la_LIBTOOLFLAGS = $(ONE_OBJECT)

libalcove_loader_la_SOURCES =
libalcove_loader_la_LIBADD = libloadcore.la
libalcove_loader_la_LDFLAGS = $(AM_LDFLAGS) $(SHARED_LDFLAGS) \
	-version-info $(LOADER_VERSION_INFO) -export-symbols loader/exports.sym
EXTRA_libalcove_loader_la_DEPENDENCIES = loader/exports.sym
