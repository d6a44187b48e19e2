# The host program that dev/demo runs.

noinst_PROGRAMS += alcove-demo

alcove_demo_SOURCES = \
	demo/demo.h demo/demo.c demo/input.c demo/maps.c demo/table.c demo/work_lua.c \
	demo/work_sqlite.c demo/work_xml.c
alcove_demo_CPPFLAGS = $(AM_CPPFLAGS) $(default_names)
alcove_demo_LDADD = libalcove-lua.la libalcove-loader.la

EXTRA_DIST += dev/demo
