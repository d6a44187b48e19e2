# What plugs alcove into a host.

# Lua: an allocator for lua_newstate(). It calls nothing of Lua's itself.
lib_LTLIBRARIES += libalcove-lua.la
alcove_HEADERS += plugins/lua/alcove_lua.h

libalcove_lua_la_SOURCES = plugins/lua/alcove_lua.c
libalcove_lua_la_LDFLAGS = $(AM_LDFLAGS) $(SHARED_LDFLAGS) \
	-version-info 0:0:0 -export-symbols-regex '^alcove_lua_'
