# The loader: libalcove-loader, what a host links.
# libloadcore.la holds its objects, so that the unit tests can reach what the library hides.

lib_LTLIBRARIES += libalcove-loader.la
noinst_LTLIBRARIES += libloadcore.la

libloadcore_la_SOURCES = \
	loader/api.c loader/error.c loader/escape.c loader/escape.h loader/events.c loader/events.h \
	loader/list.c loader/load.c loader/loader.h loader/module.c loader/module.h loader/module_route.c \
	loader/open.c loader/search.c loader/which.c \
	loader/file.c loader/elf/imports.c loader/elf/imports.h loader/elf/notes.c loader/elf/notes.h \
	loader/elf/object.c loader/elf/object.h loader/elf/protection.c loader/elf/protection.h \
	loader/elf/symbols.c loader/elf/symbols.h loader/elf/words.c loader/elf/words.h \
	loader/elf/writer.c loader/elf/writer.h \
	loader/keeper/code.c loader/keeper/code.h loader/keeper/crossings.c loader/keeper/definers.c loader/keeper/definers.h \
	loader/keeper/dispatch.c loader/keeper/dispatch.h loader/keeper/forks.c loader/keeper/guards.c \
	loader/keeper/lead.c loader/keeper/lead.h loader/keeper/linker.c loader/keeper/meeting.c loader/keeper/meeting.h \
	loader/keeper/namespaces.c loader/keeper/routes.c loader/keeper/routes.h loader/keeper/scan.c \
	loader/keeper/services.c loader/keeper/steering.c loader/keeper/steering.h loader/keeper/strict.c \
	loader/keeper/strict.h loader/keeper/territory.c loader/keeper/territory.h \
	loader/keeper/thunk_sizes.h loader/keeper/thunk_text.S loader/keeper/thunks.c loader/keeper/thunks.h

libloadcore_la_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/loader -DALCOVE_LIBDIR_MODULE='"$(libdir)/libalcove@S@.so"'
libloadcore_la_CFLAGS = $(AM_CFLAGS) -fvisibility=hidden -fno-semantic-interposition
libloadcore_la_LIBTOOLFLAGS = $(ONE_OBJECT)

libalcove_loader_la_SOURCES =
libalcove_loader_la_LIBADD = libloadcore.la
libalcove_loader_la_LDFLAGS = $(AM_LDFLAGS) $(SHARED_LDFLAGS) \
	-version-info $(LOADER_VERSION_INFO) -export-symbols loader/exports.sym
EXTRA_libalcove_loader_la_DEPENDENCIES = loader/exports.sym
